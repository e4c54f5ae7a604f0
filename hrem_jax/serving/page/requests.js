// The API: answers are kept, so that the back button shows at once what was there.

const KEPT = 60;
const answers = new Map();

export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.mayWorkLater = status === 0 || status === 408 || status >= 500;
  }
}

async function answerOf(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused('The server does not answer. Is it still running?');
  }
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(`The server answered with something unexpected (status ${response.status}).`);
  }
  if (!response.ok) throw new Refused(body.error ?? `The server refused (status ${response.status}).`, response.status);
  return body;
}

function address(path, query) {
  const parameters = new URLSearchParams(query).toString();
  return parameters ? `${path}?${parameters}` : path;
}

async function kept(key, ask) {
  if (!answers.has(key)) {
    const answer = await ask();
    answers.set(key, answer);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  }
  return answers.get(key);
}

export function get(path, query, signal) {
  const key = address(path, query);
  return kept(key, () => answerOf(key, { signal }));
}

export function picturePath(id) {
  return `api/pictures/${encodeURIComponent(id)}`;
}

// `number` tells uploads apart: another upload is another question.
export function send(file, number, count, signal) {
  const type = file.type.startsWith('image/') ? file.type : 'application/octet-stream';
  const options = { method: 'POST', body: file, headers: { 'Content-Type': type }, signal };
  return kept(`upload ${number} ${count}`, () => answerOf(address('api/search', { count }), options));
}
