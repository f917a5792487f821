// Bodies: JSON, XML, forms, multipart, images, text, bytes. All of it is foreign, and enters the page as text.

import { copy, h, put, size } from './dom.js';

const cache = new Map();
let urls = [];

/** Another entry is shown. */
export function forget() {
  cache.clear();
  for (const url of urls) URL.revokeObjectURL(url);
  urls = [];
}

export async function load(entry, side, form, wanted) {
  const key = `${entry.id}/${side}/${form}/${wanted}`;
  if (!cache.has(key)) {
    cache.set(key, fetch(`/ui/entries/${entry.id}/${side}/${form}`).then(async (response) => {
      if (!response.ok) throw new Error('no longer kept');
      return { bytes: new Uint8Array(await response.arrayBuffer()), isCut: response.headers.has('hithe-cut'), error: response.headers.get('hithe-error') };
    }));
  }
  return cache.get(key);
}

export const unbase64 = (text) => Uint8Array.from(atob(text ?? ''), (c) => c.charCodeAt(0));

const MOST_TEXT = 512 * 1024;
const MOST_HEX = 32 * 1024;
const IMAGES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif', 'image/bmp', 'image/x-icon', 'image/svg+xml'];

export async function showBody(place, entry, side, message) {
  let loaded;
  try {
    loaded = await load(entry, side, 'body', message.body_size);
  } catch (error) {
    put(place, h('p', { class: 'notice warn' }, error.message));
    return;
  }
  const { bytes, isCut, error } = loaded;
  const type = message.content_type.split(';')[0].trim().toLowerCase();
  const made = render(bytes, type, message.content_type, message.is_truncated || isCut);
  const notes = [];
  if (message.is_truncated) notes.push(h('p', { class: 'notice warn' }, `The body is ${size(message.body_size)} long; only its beginning was kept.`));
  if (isCut) notes.push(h('p', { class: 'notice warn' }, `Only the first ${size(bytes.length)} of what it decodes to are shown.`));
  if (error) notes.push(h('p', { class: 'notice warn' }, `It says ${message.encoding}, but: ${error}.`));
  const facts = [type || 'no type', size(bytes.length)];
  if (message.encoding && !error) facts.push(`${message.encoding}, ${size(message.body_size)} on the wire`);
  put(place, h('div', { class: 'body-head' }, h('b', {}, made.name), h('span', {}, facts.join(' · ')),
    made.text !== undefined ? h('button', { type: 'button', class: 'quiet', onclick: () => copy(made.text, 'Body') }, 'Copy') : null,
    h('button', { type: 'button', class: 'quiet', onclick: () => save(bytes, entry, side) }, 'Save')), notes, made.content);
}

function save(bytes, entry, side) {
  const url = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
  h('a', { href: url, download: `${entry.id}-${side}.bin` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function render(bytes, type, full, isPart) {
  if (!bytes.length) return { name: 'Body', content: h('p', { class: 'quiet-text' }, 'Empty.') };
  if (IMAGES.includes(type)) return image(bytes, type);
  if (type.startsWith('multipart/')) {
    const boundary = /boundary="?([^";]+)"?/i.exec(full)?.[1];
    const parts = boundary && multipart(bytes, boundary);
    if (parts?.length) return { name: 'Multipart', content: h('ul', { class: 'parts' }, parts) };
  }
  const text = decode(bytes, full);
  if (text === null) return { name: 'Bytes', content: h('pre', { class: 'code' }, hex(bytes)) };
  if (type === 'application/x-www-form-urlencoded') {
    const rows = [...new URLSearchParams(text)].map(([key, value]) => h('tr', {}, h('th', { scope: 'row' }, key), h('td', {}, value)));
    return { name: 'Form', text, content: h('table', { class: 'fields' }, h('tbody', {}, rows)) };
  }
  if (/[/+]json$/.test(type) || (!type && /^\s*[[{]/.test(text))) return json(text, isPart);
  if (/[/+]xml$/.test(type)) return xml(text, isPart);
  return { name: type === 'text/html' ? 'HTML' : 'Text', text, content: code(text) };
}

/** Null if it is no text. */
function decode(bytes, type) {
  const charset = /charset="?([\w-]+)"?/i.exec(type)?.[1] ?? 'utf-8';
  try {
    const isText = /^(text\/|application\/(json|xml|javascript|x-www-form-urlencoded|graphql))|[+/](json|xml)/i.test(type);
    // Cut within a letter, perhaps.
    const text = new TextDecoder(charset, { fatal: !isText }).decode(bytes, { stream: true });
    return !isText && /[\0-\x08\x0e-\x1a]/.test(text.slice(0, 4096)) ? null : text;
  } catch {
    return null;
  }
}

function code(text) {
  if (text.length <= MOST_TEXT) return h('pre', { class: 'code' }, text);
  return [h('pre', { class: 'code' }, text.slice(0, MOST_TEXT)), h('p', { class: 'quiet-text' }, `The first ${size(MOST_TEXT)}. Save or copy it to see all.`)];
}

function image(bytes, type) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  urls.push(url);
  const picture = h('img', { class: 'picture', src: url, alt: 'The body as an image' });
  const facts = h('p', { class: 'quiet-text' });
  picture.addEventListener('load', () => put(facts, `${picture.naturalWidth} × ${picture.naturalHeight}`));
  picture.addEventListener('error', () => picture.replaceWith(h('pre', { class: 'code' }, hex(bytes))));
  return { name: 'Image', content: h('figure', {}, picture, facts) };
}

// --- JSON: laid out from its own words, so that numbers and doubled keys stay what they are

const TOKEN = /\s*(?:("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)|([{}[\],:]))/y;

export function layJson(text) {
  const out = [];
  let depth = 0;
  let at = 0;
  const pad = () => `\n${'  '.repeat(Math.min(depth, 60))}`;
  let before = '';
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (!found) {
      if (text.slice(at).trim() === '') break;
      return null;
    }
    at = TOKEN.lastIndex;
    const [, string, number, word, sign] = found;
    if (sign === '}' || sign === ']') {
      depth -= 1;
      if (before !== '{' && before !== '[') out.push(['', pad()]);
      out.push(['sign', sign]);
    } else {
      if (before === '{' || before === '[' || before === ',') out.push(['', pad()]);
      if (sign === '{' || sign === '[') depth += 1;
      if (string) out.push([/^\s*:/.test(text.slice(at, at + 20)) ? 'key' : 'string', string]);
      else if (number) out.push(['number', number]);
      else if (word) out.push(['word', word]);
      else out.push(['sign', sign === ':' ? ': ' : sign]);
    }
    before = sign ?? 'value';
  }
  return out;
}

const coloured = (tokens) => h('pre', { class: 'code' }, tokens.length < 20_000 ? tokens.map(([kind, text]) => (kind ? h('span', { class: `j-${kind}` }, text) : text)) : tokens.map(([, text]) => text).join(''));

function json(text, isPart) {
  let problem = null;
  try {
    JSON.parse(text);
  } catch (error) {
    problem = error.message;
  }
  const tokens = text.length <= MOST_TEXT ? layJson(text) : null;
  const notice = problem && !isPart ? h('p', { class: 'notice warn' }, `No valid JSON: ${problem}`) : null;
  return { name: 'JSON', text: tokens && !problem ? tokens.map(([, it]) => it).join('') : text, content: [notice, tokens && (!problem || isPart) ? coloured(tokens) : code(text)].flat() };
}

export function prettyText(text) {
  if (/^\s*[[{]/.test(text)) {
    const tokens = layJson(text);
    if (tokens) return coloured(tokens);
  }
  return h('pre', { class: 'code' }, text);
}

// --- XML

function xml(text, isPart) {
  if (text.length > MOST_TEXT) return { name: 'XML', text, content: code(text) };
  const parsed = new DOMParser().parseFromString(text, 'application/xml');
  const failure = parsed.querySelector('parsererror');
  if (failure) {
    const reason = failure.textContent.replace(/\s+/g, ' ').replace(/^This page contains the following errors: ?|Below is a rendering.*$/g, '').trim();
    return { name: 'XML', text, content: [isPart ? null : h('p', { class: 'notice warn' }, `No valid XML: ${reason}`), code(text)].flat().filter(Boolean) };
  }
  const out = [];
  const declaration = /^\s*<\?xml[^>]*\?>/.exec(text);
  if (declaration) out.push(h('span', { class: 'j-word' }, declaration[0].trim()), '\n');
  for (const node of parsed.childNodes) layXml(node, 0, out);
  return { name: 'XML', text, content: h('pre', { class: 'code' }, out) };
}

function layXml(node, depth, out) {
  const pad = '  '.repeat(Math.min(depth, 60));
  if (node.nodeType === Node.ELEMENT_NODE) {
    out.push(`${pad}`, h('span', { class: 'j-key' }, `<${node.nodeName}`));
    for (const { name, value } of node.attributes) out.push(' ', h('span', { class: 'j-word' }, name), '=', h('span', { class: 'j-string' }, `"${value}"`));
    const children = [...node.childNodes].filter((it) => it.nodeType !== Node.TEXT_NODE || it.data.trim());
    if (!children.length) return void out.push(h('span', { class: 'j-key' }, '/>'), '\n');
    out.push(h('span', { class: 'j-key' }, '>'));
    if (children.every((it) => it.nodeType === Node.TEXT_NODE)) {
      out.push(node.textContent.trim());
    } else {
      out.push('\n');
      for (const child of children) layXml(child, depth + 1, out);
      out.push(pad);
    }
    out.push(h('span', { class: 'j-key' }, `</${node.nodeName}>`), '\n');
  } else if (node.nodeType === Node.COMMENT_NODE) {
    out.push(pad, h('span', { class: 'j-sign' }, `<!--${node.data}-->`), '\n');
  } else if (node.nodeType === Node.CDATA_SECTION_NODE) {
    out.push(pad, `<![CDATA[${node.data}]]>`, '\n');
  } else if (node.nodeType === Node.TEXT_NODE) {
    out.push(pad, node.data.trim(), '\n');
  }
}

// --- multipart

function multipart(bytes, boundary) {
  const latin = new TextDecoder('latin1').decode(bytes);
  const parts = [];
  const pieces = latin.split(`--${boundary}`);
  let at = 0;
  for (const piece of pieces.slice(0, 200)) {
    const start = at;
    at += piece.length + boundary.length + 2;
    const gap = piece.indexOf('\r\n\r\n');
    if (start === 0 || piece.startsWith('--') || gap < 0) continue;
    const end = start + piece.length - (piece.endsWith('\r\n') ? 2 : 0);
    const content = bytes.subarray(start + gap + 4, end);
    const head = new TextDecoder().decode(bytes.subarray(start, start + gap)).trim();
    const field = (name) => new RegExp(`^${name}:\\s*(.*)$`, 'im').exec(head)?.[1]?.trim() ?? '';
    const disposition = field('content-disposition');
    const part = (name) => new RegExp(`[; ]${name}="([^"]*)"`, 'i').exec(disposition)?.[1];
    const type = field('content-type');
    const made = render(content, type.split(';')[0].toLowerCase(), type, false);
    parts.push(h('li', {}, h('div', { class: 'body-head' }, h('b', {}, part('name') ?? 'part'), h('span', {}, [part('filename'), type, size(content.length)].filter(Boolean).join(' · '))), made.content));
  }
  return parts;
}

// --- raw

export async function rawView(place, entry, side, view) {
  put(place, h('p', { class: 'quiet-text' }, 'Loading …'));
  const { bytes } = await load(entry, side, 'raw', entry[side].size).catch(() => ({ bytes: new Uint8Array() }));
  const kept = entry[side].size > bytes.length ? h('p', { class: 'notice warn' }, `The first ${size(bytes.length)} of ${size(entry[side].size)}.`) : null;
  const text = () => new TextDecoder().decode(bytes.subarray(0, MOST_TEXT)).replace(/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/g, '·').replace(/\r\n/g, '\n');
  put(place, kept, h('pre', { class: 'code' }, view === 'Hex' ? hex(bytes) : text()));
}

export function hex(bytes) {
  const lines = [];
  const most = Math.min(bytes.length, MOST_HEX);
  for (let at = 0; at < most; at += 16) {
    const row = [...bytes.subarray(at, Math.min(at + 16, most))];
    const pairs = row.map((byte) => byte.toString(16).padStart(2, '0'));
    const left = `${pairs.slice(0, 8).join(' ')}  ${pairs.slice(8).join(' ')}`.padEnd(49);
    lines.push(`${at.toString(16).padStart(6, '0')}  ${left} ${row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : '·')).join('')}`);
  }
  if (bytes.length > most) lines.push(`… ${size(bytes.length - most)} more`);
  return lines.join('\n');
}
