// Where the page is (its address), and what it shows there.

import { Refused, get, picturePath, send } from './requests.js';
import * as views from './views.js';

const RESULTS = 30;
const PAGE = 60;
const element = (id) => document.getElementById(id);
const view = element('view');
const uploads = new Map(); // files that were searched by, until the page is left
const places = new Map(); // of each entry of the history: how far it was scrolled, how much it showed
let limits = null; // the answer of api/about
let underWay = new AbortController();
let shownEntry = null; // null while something is on its way

// The address

function entry() {
  return history.state?.entry ?? 'first';
}

function place() {
  if (!places.has(entry())) places.set(entry(), { scroll: 0, count: 0 });
  return places.get(entry());
}

function go(query, state = {}) {
  const address = views.linkTo(query);
  const same = new URL(address, location.href).href === location.href && state.upload === history.state?.upload;
  state = { entry: String(Math.random()), ...state };
  if (same) history.replaceState(state, '', address);
  else history.pushState(state, '', address);
  show({ focus: true });
}

// What is shown

async function show({ focus = false } = {}) {
  underWay.abort();
  underWay = new AbortController();
  const { signal } = underWay;
  const query = new URLSearchParams(location.search);
  const text = (query.get('text') ?? '').trim();
  const by = ['words', 'both'].find((way) => way === query.get('by')) ?? 'meaning';
  element('text').value = text;
  element('by').value = by;
  shownEntry = null;
  view.setAttribute('aria-busy', 'true');
  try {
    if (query.has('id')) await showPicture(query.get('id'), signal);
    else if (query.has('upload')) await showUpload(history.state?.upload, signal);
    else if (text) await showSearch(text, by, signal);
    else await showGallery(signal);
    if (signal.aborted) return;
    window.scrollTo(0, place().scroll);
    shownEntry = entry();
  } catch (error) {
    if (signal.aborted) return;
    const again = error.mayWorkLater ? () => show() : null;
    put(views.heading('Sorry', 'This did not work'), views.problem(error.message, again));
    say(error.message);
  } finally {
    if (!signal.aborted) view.removeAttribute('aria-busy');
  }
  if (focus && !signal.aborted) element('main').focus({ preventScroll: true });
}

function put(...children) {
  view.replaceChildren(...children.filter((child) => child !== null));
}

function say(message) {
  element('status').textContent = message;
}

function name(title) {
  document.title = title ? `${title} · Picture search` : 'Picture search';
}

// An answer that is there within a moment is shown without a flicker.
async function unlessQuick(promise, signal, draw) {
  const timer = setTimeout(() => signal.aborted || draw(), 120);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

async function showGallery(signal) {
  name('');
  const here = place();
  const wanted = Math.max(PAGE, here.count);
  const lede = 'Describe it in a few words, or take a picture of your own to find similar ones.';
  const head = () => views.heading('Gallery', 'Find a picture by what it shows', lede);
  const asked = Promise.all(pages(wanted).map((start) => get('api/pictures', { start, count: PAGE }, signal)));
  const answers = await unlessQuick(asked, signal, () => put(head(), views.waiting()));
  if (signal.aborted) return;
  const pictures = answers.flatMap((answer) => answer.pictures);
  const { total } = answers[0];
  if (!total) {
    put(head(), views.nothing('There are no pictures in this index yet.'));
    say('No pictures');
    return;
  }
  const isPart = pictures.length < total;
  const label = `${isPart ? `${views.number(pictures.length)} of ` : ''}${views.counted(total)}`;
  put(
    head(),
    ideas(pictures),
    views.make('p', { className: 'quiet count' }, label),
    views.grid(pictures, 'Pictures'),
    isPart ? views.more('Show more', () => enlarge(here, wanted + PAGE, pictures.length)) : null,
  );
  say(label);
}

function pages(count) {
  return Array.from({ length: Math.ceil(count / PAGE) }, (_, page) => page * PAGE);
}

function ideas(pictures) {
  const step = Math.max(1, Math.floor(pictures.length / 4));
  const found = pictures
    .filter((_, position) => position % step === 0)
    .flatMap((picture) => [...picture.captions].sort((one, other) => one.length - other.length).slice(0, 1))
    .filter((caption) => caption.length < 60);
  const sentences = [...new Set(found)].slice(0, 4);
  return sentences.length ? views.suggestions(sentences) : null;
}

// More of the same; the keyboard goes on at the first of the new ones.
async function enlarge(here, count, seen) {
  here.count = count;
  here.scroll = window.scrollY;
  await show();
  view.querySelectorAll('.grid > li > a')[seen]?.focus({ preventScroll: true });
}

async function showSearch(text, by, signal) {
  name(text);
  await showResults({
    head: () => views.heading(by === 'words' ? 'Pictures with the words' : 'Pictures for', `“${text}”`),
    ask: (count) => get('api/search', by === 'meaning' ? { text, count } : { text, count, by }, signal),
    none: by === 'words' ? 'No caption or name has all of these words.' : 'No picture was found.',
    signal,
  });
}

async function showUpload(number, signal) {
  name('Your picture');
  const file = uploads.get(number);
  if (!file) {
    const advice = 'Your picture was not kept. Choose it once more.';
    put(views.heading('Pictures like', 'your picture'), views.nothing(advice));
    say('Your picture was not kept.');
    return;
  }
  const head = views.heading('Pictures like', file.name || 'your picture');
  const shown = await views.preview(file);
  if (shown) head.prepend(shown);
  await showResults({
    head: () => head,
    ask: (count) => sendWithin(file, number, count, signal),
    none: 'No picture was found.',
    signal,
  });
}

async function sendWithin(file, number, count, signal) {
  if (limits && file.size > limits.max_upload) {
    const [size, most] = [file.size, limits.max_upload].map(views.number);
    throw new Refused(`The picture is too large: ${size} bytes, at most ${most} are taken.`, 413);
  }
  return send(file, number, count, signal);
}

async function showResults({ head, ask, none, signal }) {
  const here = place();
  const most = limits?.max_results ?? 100;
  const count = Math.max(RESULTS, here.count);
  const { results, unknown } = await unlessQuick(ask(count), signal, () => put(head(), views.waiting()));
  if (signal.aborted) return;
  const without = unknown.length ? `, without words that the model has not learnt: ${unknown.join(', ')}` : '';
  const label = results.length ? `The ${views.counted(results.length)} that fit best${without}` : none;
  put(
    head(),
    results.length ? views.make('p', { className: 'quiet count' }, label) : views.nothing(none),
    results.length ? views.grid(results, 'Results, best first') : null,
    results.length === count && count < most
      ? views.more('Show more', () => enlarge(here, Math.min(most, count + RESULTS), results.length))
      : null,
  );
  say(label);
}

async function showPicture(id, signal) {
  name(id);
  const about = await unlessQuick(get(picturePath(id), {}, signal), signal, () => put(views.waiting(1)));
  if (signal.aborted) return;
  const portrait = views.portrait(about);
  const title = views.make('h2', {}, 'Most similar pictures');
  const asked = get(`${picturePath(id)}/nearest`, { count: 24 }, signal);
  const { results } = await unlessQuick(asked, signal, () => put(portrait, title, views.waiting()));
  if (signal.aborted) return;
  const others = results.length ? views.grid(results, 'Most similar pictures') : views.nothing('There are no others.');
  put(portrait, title, others);
  say(`Picture ${id}, ${views.counted(results.length)} like it`);
}

// What people do

function searchBy(file) {
  const number = uploads.size + 1;
  uploads.set(number, file);
  go({ upload: number }, { upload: number });
}

document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href]');
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const target = new URL(link.href);
  if (target.origin !== location.origin || target.pathname !== location.pathname) return;
  event.preventDefault();
  if (target.hash) {
    element('main').focus(); // over the bar, which keeps the keyboard long enough
    return;
  }
  go(Object.fromEntries(target.searchParams));
});

function searchByText() {
  const [text, by] = [element('text').value.trim(), element('by').value];
  go(text ? { text, ...(by === 'meaning' ? {} : { by }) } : {});
}

element('search').addEventListener('submit', (event) => {
  event.preventDefault();
  searchByText();
});
element('by').addEventListener('change', () => element('text').value.trim() && searchByText());

element('choose').addEventListener('click', () => element('file').click());
element('file').addEventListener('change', (event) => {
  const [file] = event.target.files;
  event.target.value = '';
  if (file) searchBy(file);
});

let depth = 0; // dragenter and dragleave come for every element that is passed
const carriesFile = (event) => event.dataTransfer?.types.includes('Files');
const veil = (shown) => {
  depth = shown ? depth : 0;
  element('drop').hidden = !shown;
};
document.addEventListener('dragenter', (event) => {
  if (!carriesFile(event)) return;
  depth += 1;
  veil(true);
});
document.addEventListener('dragleave', () => {
  depth -= 1;
  if (depth <= 0) veil(false);
});
document.addEventListener('dragover', (event) => carriesFile(event) && event.preventDefault());
document.addEventListener('drop', (event) => {
  veil(false);
  const file = event.dataTransfer?.files[0];
  if (!file) return;
  event.preventDefault();
  searchBy(file);
});
document.addEventListener('paste', (event) => {
  const file = [...event.clipboardData.files].find((each) => each.type.startsWith('image/'));
  if (file) searchBy(file);
});

document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input, select')) return;
  event.preventDefault();
  element('text').select();
});

window.addEventListener('scroll', () => {
  if (shownEntry === entry()) place().scroll = window.scrollY;
}, { passive: true });
window.addEventListener('popstate', () => show());

history.scrollRestoration = 'manual';
show();
get('api/about', {}).then((answer) => {
  limits = answer;
  element('text').maxLength = answer.max_text;
  const api = views.make('a', { href: 'openapi.json' }, 'API');
  element('about').append(`${views.counted(answer.pictures)} · ${answer.model} · `, api);
}, () => {}); // what is shown says by itself that the server does not answer
