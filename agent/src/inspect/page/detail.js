// One entry: what was asked, what was answered, and how long it took.

import { $, clock, copy, duration, h, moment, put, size, toast, tone, change } from './dom.js';
import { forget, hex, prettyText, rawView, showBody, unbase64 } from './body.js';
import { curlOf, editDialog } from './edit.js';

let shown = null; // the detail on show
let context = {};
let asked = 0;

export function clearDetail(endpoints) {
  shown = null;
  const urls = endpoints.flatMap((endpoint) => endpoint.urls);
  put($('detail'), h('div', { class: 'empty' },
    h('img', { src: '/assets/icon.svg', alt: '', width: 56, height: 56 }),
    h('h2', {}, 'Choose a request to look into it'),
    urls.length
      ? [h('p', {}, 'Whatever passes here shows up in the list at once:'), h('ul', { class: 'urls' }, urls.slice(0, 8).map((url) => h('li', {}, /^https?:/.test(url) ? h('a', { href: url, target: '_blank', rel: 'noreferrer noopener' }, url) : h('code', {}, url), h('button', { type: 'button', class: 'quiet', onclick: () => copy(url, 'URL') }, 'Copy'))))]
      : h('p', {}, 'No endpoint is online yet.'),
    h('p', { class: 'hint' }, h('kbd', {}, 'j'), ' ', h('kbd', {}, 'k'), ' move · ', h('kbd', {}, 'r'), ' replay · ', h('kbd', {}, '/'), ' filter · ', h('kbd', {}, '?'), ' help')));
}

export async function showDetail(id, given) {
  context = given ?? context;
  const ask = ++asked;
  const response = await fetch(`/ui/entries/${id}`).catch(() => null);
  if (ask !== asked) return;
  if (!response?.ok) {
    shown = null;
    put($('detail'), h('div', { class: 'empty' }, h('h2', {}, 'No longer kept'), h('p', {}, 'The oldest entries go first when the memory is full.'), h('button', { type: 'button', onclick: context.back }, 'Back to the list')));
    return;
  }
  const before = shown;
  shown = await response.json();
  if (ask !== asked) return;
  if (before?.id !== id) forget();
  render(before?.id === id);
}

let again;
/** The entry on show changed. */
export function refresh(summary) {
  if (again) return;
  again = setTimeout(() => { again = null; showDetail(summary.id); }, shown?.id === summary.id ? 400 : 0);
}

const views = { request: 'Parsed', response: 'Parsed' };

function render(keepsScroll) {
  const detail = $('detail');
  const top = detail.scrollTop;
  const isHttp = shown.kind !== 'connection';
  put(detail, head(isHttp), notices(), isHttp ? timing() : null,
    shown.talk ? talk(shown.talk) : null,
    shown.request ? card('request', shown.request) : null,
    shown.response ? card('response', shown.response) : isHttp ? waiting() : null,
    shown.flow ? flow(shown.flow) : null);
  detail.scrollTop = keepsScroll ? top : 0;
}

function head(isHttp) {
  const title = isHttp
    ? [h('span', { class: 'method' }, shown.method), ' ', h('span', { class: 'target' }, shown.target)]
    : `${shown.protocol || 'TCP'} connection`;
  const facts = [
    ['Endpoint', shown.endpoint], ['Visitor', shown.replay_of ? 'this machine' : shown.remote], ['Host', shown.host], ['Started', moment(shown.start)],
    ['Took', shown.duration === null ? 'still open' : duration(shown.duration)], ['Size', size(shown.size)], ['Protocol', shown.protocol],
  ].filter(([, value]) => value);
  const code = shown.status ?? (shown.duration === null ? 'waiting' : 'no answer');
  return h('header', { class: 'head' },
    h('button', { type: 'button', class: 'quiet back', onclick: context.back }, '← List'),
    h('h1', {}, title),
    h('div', { class: 'acts' },
      isHttp ? h('span', { class: `pill large ${tone(shown.status)}` }, `${code}`, shown.response ? ` ${shown.response.line.split(' ').slice(2).join(' ')}` : '') : null,
      isHttp && !shown.no_replay ? [
        h('button', { type: 'button', class: 'main', onclick: replay, title: 'Send it to the upstream once more (r)' }, 'Replay'),
        h('button', { type: 'button', onclick: edit, title: 'Change it, then send it (e)' }, 'Edit & replay'),
      ] : null,
      isHttp ? h('button', { type: 'button', onclick: curl, title: 'As a command (c)' }, 'Copy as curl') : null),
    h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))));
}

function notices() {
  const text = [];
  if (shown.replay_of) {
    const open = (event) => { event.preventDefault(); context.choose(shown.replay_of); };
    text.push(h('p', { class: 'notice replay' }, 'A replay, sent from here straight to the upstream. ', h('a', { href: `#${shown.replay_of}`, onclick: open }, 'The original')));
  }
  if (shown.incomplete) text.push(h('p', { class: 'notice warn' }, `Not everything is here: ${shown.incomplete}.`));
  if (shown.is_cut && !shown.incomplete) text.push(h('p', { class: 'notice warn' }, 'The connection ended before this was over.'));
  return text;
}

function timing() {
  const total = shown.duration;
  if (total === null || total === 0) return null;
  const answered = Math.min(shown.answered ?? total, total);
  const sent = Math.min(shown.sent ?? answered, answered);
  const parts = [['Sending', sent, 'send'], ['Waiting', answered - sent, 'wait'], [shown.kind === 'websocket' ? 'Open' : 'Receiving', total - answered, 'receive']];
  const bar = h('div', { class: 'bar', role: 'img', 'aria-label': parts.map(([name, ms]) => `${name} ${duration(ms)}`).join(', ') });
  for (const [name, ms, kind] of parts) {
    const part = h('span', { class: kind, title: `${name} ${duration(ms)}` });
    part.style.flexGrow = `${Math.max(ms / total, ms > 0 ? 0.004 : 0)}`;
    bar.append(part);
  }
  return h('section', { class: 'timing', 'aria-label': 'Timing' }, bar, h('ul', {}, parts.map(([name, ms, kind]) => h('li', {}, h('i', { class: kind }), `${name} `, h('b', {}, duration(ms))))));
}

const waiting = () => h('section', { class: 'card' }, h('header', {}, h('h2', {}, 'Response')), h('p', { class: 'quiet-text' }, shown.duration === null ? 'Waiting for the upstream …' : 'There was none.'));

function card(side, message) {
  const body = h('div', { class: 'content' });
  const show = (view) => {
    views[side] = view;
    for (const button of tabs.children) button.setAttribute('aria-selected', `${button.textContent === view}`);
    if (view === 'Parsed') put(body, parsed(side, message));
    else rawView(body, shown, side, view);
  };
  const tabs = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'How it is shown' }, ['Parsed', 'Raw', 'Hex'].map((view) => h('button', { type: 'button', role: 'tab', onclick: () => show(view) }, view)));
  const section = h('section', { class: 'card', 'aria-label': side }, h('header', {}, h('h2', {}, side === 'request' ? 'Request' : 'Response'), h('span', { class: 'first-line' }, message.line), tabs), body);
  show(views[side]);
  return section;
}

function fields(name, pairs, open) {
  if (!pairs.length) return null;
  const table = h('table', { class: 'fields' }, h('tbody', {}, pairs.map(([key, value]) => h('tr', {}, h('th', { scope: 'row' }, key), h('td', {}, value)))));
  return h('details', { open }, h('summary', {}, name, ' ', h('span', { class: 'count' }, `${pairs.length}`)), table);
}

function parsed(side, message) {
  const parts = [];
  const question = shown.target.indexOf('?');
  if (side === 'request' && question >= 0) parts.push(fields('Query', [...new URLSearchParams(shown.target.slice(question + 1))], true));
  parts.push(fields('Headers', message.headers, true));
  if (message.body_size > 0) {
    const place = h('div', { class: 'body' });
    parts.push(place);
    showBody(place, shown, side, message);
  } else if (!shown.talk || side === 'request') {
    parts.push(h('p', { class: 'quiet-text' }, 'No body.'));
  }
  parts.push(fields('Trailers', message.trailers, true));
  return parts;
}

// --- WebSockets and other connections

const opened = new Set();

function talk(talk) {
  const items = talk.frames.map((frame) => {
    const key = `${shown.id} ${frame.number}`;
    const bytes = frame.text === null ? unbase64(frame.base64) : null;
    const short = frame.text ?? `${frame.size} bytes`;
    const line = [
      h('span', { class: 'arrow', title: frame.is_request ? 'from the visitor' : 'from the upstream', 'aria-label': frame.is_request ? 'from the visitor' : 'from the upstream', role: 'img' }, frame.is_request ? '↑' : '↓'),
      h('span', { class: `badge ${frame.kind}` }, frame.kind), h('span', { class: 'payload' }, short.slice(0, 400)), h('span', { class: 'when' }, `${size(frame.size)} · +${duration(frame.at)}`),
    ];
    const isLong = bytes?.length > 0 || short.length > 60;
    if (!isLong) return h('li', { class: frame.is_request ? 'up' : 'down' }, h('div', { class: 'frame' }, line));
    const details = h('details', { ontoggle: () => (details.open ? opened.add(key) : opened.delete(key)) }, h('summary', { class: 'frame' }, line),
      bytes ? h('pre', { class: 'code' }, hex(bytes)) : prettyText(frame.text), frame.is_cut ? h('p', { class: 'quiet-text' }, `Only the first ${size(bytes?.length ?? frame.text.length)} are kept.`) : null);
    details.open = opened.has(key);
    return h('li', { class: frame.is_request ? 'up' : 'down' }, details);
  });
  if (opened.size > 1000) opened.clear();
  const older = talk.count - talk.frames.length;
  return h('section', { class: 'card', 'aria-label': 'Messages' },
    h('header', {}, h('h2', {}, 'Messages'), h('span', { class: 'first-line' }, `${talk.count} · ↑ ${size(talk.request_bytes)} · ↓ ${size(talk.response_bytes)}`)),
    talk.broken ? h('p', { class: 'notice warn' }, `What followed could not be read: ${talk.broken}.`) : null,
    older > 0 ? h('p', { class: 'quiet-text' }, `${older} older not shown.`) : null,
    items.length ? h('ol', { class: 'frames' }, items) : h('p', { class: 'quiet-text' }, 'None yet.'));
}

function flow(flow) {
  const way = (name, way) => {
    const bytes = unbase64(way.first);
    const since = way.since === null ? '' : ` · first byte after ${duration(way.since)}`;
    return h('section', { class: 'card', 'aria-label': name }, h('header', {}, h('h2', {}, name), h('span', { class: 'first-line' }, `${size(way.total)}${since}`)),
      bytes.length ? h('pre', { class: 'code' }, hex(bytes)) : h('p', { class: 'quiet-text' }, 'Nothing.'),
      way.total > bytes.length ? h('p', { class: 'quiet-text' }, `The first ${size(bytes.length)}.`) : null);
  };
  return [way('From the visitor', flow.request), way('From the upstream', flow.response)];
}

// --- actions

export async function replay() {
  if (!shown || shown.no_replay) return shown && toast(`Not replayed: ${shown.no_replay}`, true);
  const { id } = shown;
  context.replayed(id);
  try {
    await change('POST', '/ui/replay', { id });
    toast('Sent once more');
  } catch (error) {
    toast(`Not replayed: ${error.message}`, true);
  }
}

export function edit() {
  if (!shown || shown.kind !== 'http') return;
  editDialog(shown, context.replayed);
}

export async function curl() {
  if (!shown || shown.kind === 'connection') return;
  copy(await curlOf(shown, context.endpoints), 'Command');
}
