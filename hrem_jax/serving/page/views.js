// Elements for what the API answers. Everything from outside goes in as text, never as markup.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.startsWith('aria')) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function number(value) {
  return value.toLocaleString('en-US');
}

export function counted(value) {
  return value === 1 ? '1 picture' : `${number(value)} pictures`;
}

export function linkTo(query) {
  const parameters = new URLSearchParams(query).toString();
  return parameters ? `?${parameters}` : './';
}

function image(picture, className) {
  if (picture.picture === null) return noImage(picture, className);
  const element = make('img', {
    className,
    src: picture.picture,
    alt: className === 'thumb' ? '' : (picture.captions[0] ?? `Picture ${picture.id}`), // a tile's words stand below it
    loading: className === 'large' ? 'eager' : 'lazy',
    decoding: 'async',
  });
  element.addEventListener('error', () => element.replaceWith(noImage(picture, className)), { once: true });
  return element;
}

function noImage(picture, className) {
  return make('span', { className: `${className} missing` }, make('b', {}, picture.id), 'no file to show');
}

function tile(picture) {
  const words = make('span', { className: 'words' }, picture.captions[0] ?? picture.id);
  const link = make('a', { href: linkTo({ id: picture.id }), className: 'tile' }, image(picture, 'thumb'));
  if (picture.score !== undefined) {
    const title = 'Cosine similarity with what was searched for';
    const unseen = make('span', { className: 'unseen' }, 'score ');
    link.append(make('span', { className: 'score', title }, unseen, picture.score.toFixed(3)));
  }
  link.append(words);
  return make('li', {}, link);
}

export function grid(pictures, label) {
  return make('ul', { className: 'grid', 'aria-label': label }, ...pictures.map(tile));
}

export function waiting(count = 18) {
  const tiles = Array.from({ length: count }, () => make('li', {}, make('span', { className: 'tile empty' })));
  return make('ul', { className: 'grid', 'aria-hidden': 'true' }, ...tiles);
}

export function heading(eyebrow, title, lede = null) {
  return make(
    'header',
    { className: 'heading' },
    make('p', { className: 'eyebrow' }, eyebrow),
    make('h1', {}, title),
    lede === null ? null : make('p', { className: 'lede' }, lede),
  );
}

export function suggestions(sentences) {
  const links = sentences.map((text) => make('li', {}, make('a', { href: linkTo({ text }) }, text)));
  return make('ul', { className: 'suggestions', 'aria-label': 'Try' }, ...links);
}

export function more(text, act) {
  const button = make('button', { type: 'button', className: 'plain' }, text);
  button.addEventListener('click', act);
  return make('p', { className: 'more' }, button);
}

// `again` is null where asking once more would not help.
export function problem(message, again) {
  let wayOut = make('a', { href: linkTo({}) }, 'All pictures');
  if (again) {
    wayOut = make('button', { type: 'button', className: 'plain' }, 'Try again');
    wayOut.addEventListener('click', again);
  }
  return make('div', { className: 'note', role: 'alert' }, make('p', {}, message), wayOut);
}

export function nothing(message) {
  return make('p', { className: 'nothing' }, message);
}

export function portrait(picture) {
  const sentences = picture.captions.map((text) =>
    make('li', {}, make('a', { href: linkTo({ text }), title: 'Search for this sentence' }, text)),
  );
  const words = sentences.length
    ? make('ul', { className: 'captions' }, ...sentences)
    : make('p', { className: 'quiet' }, 'It has no captions.');
  return make(
    'article',
    { className: 'portrait' },
    make('figure', {}, image(picture, 'large')),
    make(
      'div',
      {},
      make('p', { className: 'eyebrow' }, 'Picture'),
      make('h1', {}, picture.id),
      make('h2', {}, 'Captions'),
      words,
    ),
  );
}

// The upload itself, drawn here: it is shown without being an address of any kind.
export async function preview(file) {
  const canvas = make('canvas', { className: 'preview', role: 'img', 'aria-label': `Your picture ${file.name}` });
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, 480 / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
  } catch {
    return null; // a kind that this browser does not show; the server may know it
  }
  return canvas;
}
