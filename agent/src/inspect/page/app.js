// The list, the filter, the keys, and which view is shown.

import { $, change, clock, copy, duration, h, put, size, toast, tone } from './dom.js';
import { clearDetail, curl, edit, replay, showDetail, refresh } from './detail.js';
import { hideStatus, showStatus } from './status.js';

const lines = new Map(); // id -> { data, element }
let chosen = null;
let feed = null;
let endpoints = [];
let awaited = null; // the id of an entry whose replay is to be shown when it comes

// --- the feed

function listen() {
  feed?.close();
  feed = new EventSource(`/ui/events?filter=${encodeURIComponent($('filter').value)}`);
  feed.onopen = () => live(true);
  feed.onerror = () => live(false);
  feed.onmessage = (event) => take(JSON.parse(event.data));
}

function live(is) {
  $('live').classList.toggle('on', is);
  put($('live'), is ? 'Live' : 'Not connected');
}

function take(news) {
  $('filter-error').hidden = !news.error;
  $('filter').setAttribute('aria-invalid', news.error ? 'true' : 'false');
  put($('filter-error'), news.error ?? '');
  if (news.error) return;
  if (news.status) showEndpoints(news.status);
  if (news.anew) {
    lines.clear();
    put($('list'));
  }
  for (const id of news.gone) drop(id);
  for (const data of news.lines.reverse()) line(data);
  const ids = [...lines.keys()].sort();
  for (const id of ids.slice(0, Math.max(0, ids.length - news.most_lines))) drop(id);
  const { entries, memory, most, left_out } = news.usage;
  const shown = lines.size < entries ? `${lines.size} of ${entries} entries` : `${entries} ${entries === 1 ? 'entry' : 'entries'}`;
  const counted = left_out ? ` · ${left_out} only counted` : '';
  put($('usage'), `${shown} · ${size(memory)} of ${size(most)}${counted}`);
  if (!lines.size) put($('list'), h('li', { class: 'none', role: 'presentation' }, entries ? 'Nothing matches the filter.' : 'Nothing has passed yet.'));
  else $('list').querySelector('.none')?.remove();
  if (!entries && !chosen) clearDetail(endpoints);
  const changed = chosen && news.lines.find((data) => data.id === chosen);
  if (changed) refresh(changed);
}

function drop(id) {
  lines.get(id)?.element.remove();
  lines.delete(id);
}

function line(data) {
  const known = lines.get(data.id);
  const element = row(data);
  if (known) {
    known.element.replaceWith(element);
  } else {
    const next = [...$('list').children].find((other) => other.dataset.id < data.id);
    $('list').insertBefore(element, next ?? null);
    if (awaited && data.replay_of === awaited) {
      awaited = null;
      queueMicrotask(() => choose(data.id));
    }
  }
  lines.set(data.id, { data, element });
}

function row(data) {
  const isHttp = data.kind !== 'connection';
  const badges = [
    data.kind === 'websocket' && ['WebSocket', 'ws'],
    data.replay_of && ['Replay', 'replay'],
    data.incomplete && ['Incomplete', 'warn'],
    data.is_cut && ['Cut off', 'warn'],
  ].filter(Boolean);
  const what = isHttp
    ? [h('span', { class: 'method' }, data.method), h('span', { class: 'path' }, data.target)]
    : [h('span', { class: 'method' }, data.protocol || 'TCP'), h('span', { class: 'path' }, `connection from ${data.remote}`)];
  const isOpen = data.duration === null;
  const pill = isHttp ? (data.status ?? (isOpen ? '···' : '—')) : isOpen ? 'open' : 'end';
  const element = h(
    'li',
    { role: 'option', id: `e${data.id}`, 'aria-selected': data.id === chosen ? 'true' : 'false', class: 'row', onclick: () => choose(data.id, true) },
    h('span', { class: `pill ${isHttp ? tone(data.status) : isOpen ? 'info' : 'plain'}` }, `${pill}`),
    h('span', { class: 'what' }, what),
    h('span', { class: `took ${data.duration > 1000 ? 'slow' : ''} ${isOpen ? 'open' : ''}` }, isOpen ? 'open' : duration(data.duration)),
    h('span', { class: 'about' }, `${clock(data.start)} · ${data.endpoint} · ${size(data.size)}`, badges.map(([text, kind]) => h('span', { class: `badge ${kind}` }, text))),
  );
  element.dataset.id = data.id;
  return element;
}

// --- choosing

function choose(id, focuses) {
  const before = chosen && lines.get(chosen);
  before?.element.setAttribute('aria-selected', 'false');
  chosen = id;
  const now = lines.get(id);
  now?.element.setAttribute('aria-selected', 'true');
  now?.element.scrollIntoView({ block: 'nearest' });
  $('list').setAttribute('aria-activedescendant', `e${id}`);
  document.body.classList.toggle('chosen', !!id);
  if (location.hash !== `#${id}`) history.replaceState(null, '', `#${id}`);
  showDetail(id, { endpoints, back: unchoose, replayed: (of) => (awaited = of), choose });
  if (focuses && matchMedia('(max-width: 820px)').matches) $('detail').focus();
}

function unchoose() {
  lines.get(chosen)?.element.setAttribute('aria-selected', 'false');
  chosen = null;
  $('list').removeAttribute('aria-activedescendant');
  document.body.classList.remove('chosen');
  history.replaceState(null, '', location.pathname);
  clearDetail(endpoints);
  $('list').focus();
}

function step(by) {
  const all = [...$('list').querySelectorAll('.row')].map((element) => element.dataset.id);
  if (!all.length) return;
  const at = all.indexOf(chosen);
  choose(all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))]);
}

// --- the filter

const CHIPS = [
  ['Errors', 'is:error'],
  ['Slow', 'duration:>1s'],
  ['Changes', 'method:POST,PUT,PATCH,DELETE'],
  ['WebSockets', 'is:websocket'],
  ['Replays', 'is:replay'],
];

function showChips() {
  const words = $('filter').value.split(/\s+/);
  put($('chips'), CHIPS.map(([text, word]) => {
    const isOn = words.includes(word);
    const toggle = () => {
      const others = words.filter((it) => it && it !== word);
      $('filter').value = (isOn ? others : [...others, word]).join(' ');
      showChips();
      listen();
    };
    return h('button', { type: 'button', class: 'chip', 'aria-pressed': `${isOn}`, title: word, onclick: toggle }, text);
  }));
}

let typing;
$('filter').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(() => { showChips(); listen(); }, 200);
});

$('clear').addEventListener('click', async () => {
  try {
    await change('DELETE', '/ui/entries');
    if (chosen) unchoose();
  } catch (error) {
    toast(`Not cleared: ${error.message}`, true);
  }
});

// --- endpoints, colours, help

function showEndpoints(status) {
  endpoints = status.endpoints;
  put($('endpoints'), endpoints.slice(0, 6).map((endpoint) => {
    const url = endpoint.urls[0];
    const label = url ? url.replace(/^https?:\/\//, '') : endpoint.name;
    const dot = h('span', { class: `dot ${endpoint.phase}`, role: 'img', 'aria-label': endpoint.phase });
    if (!url) return h('span', { class: 'endpoint', title: `${endpoint.name}: ${endpoint.phase}` }, dot, label);
    return h('button', { type: 'button', class: 'endpoint', title: `${endpoint.name}: ${url} → ${endpoint.upstream}. Click to copy.`, onclick: () => copy(url, 'URL') }, dot, h('span', {}, label));
  }), endpoints.length > 6 ? h('a', { href: '/status' }, `+${endpoints.length - 6}`) : null);
  if (!chosen) clearDetail(endpoints);
}

const THEMES = { auto: ['◐', 'as the system'], light: ['☀', 'light'], dark: ['☾', 'dark'] };
let theme = 'auto';
try { theme = localStorage.getItem('theme') ?? 'auto'; } catch { /* no storage: as the system */ }

function paint() {
  const [sign, name] = THEMES[theme] ?? THEMES.auto;
  document.documentElement.dataset.theme = theme;
  put($('theme'), sign);
  $('theme').setAttribute('aria-label', `Colours: ${name}`);
  $('theme').title = `Colours: ${name} (t)`;
}

function nextTheme() {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  try { localStorage.setItem('theme', theme); } catch { /* only for this page then */ }
  paint();
}

const KEYS = [['j  k', 'next, previous'], ['Enter', 'to the details'], ['Esc', 'back to the list'], ['/', 'filter'], ['r', 'replay'], ['e', 'edit and replay'], ['c', 'copy as curl'], ['t', 'colours'], ['?', 'this help']];
const WORDS = [
  ['method:post,put', 'one of these methods'], ['path:/api', 'part of the path; path:/api/* is the whole with stars'],
  ['status:4xx', 'or 404, 400-499, >=500; several with commas'], ['duration:>500ms', 'or <2s, 100ms-1s'], ['size:>10kb', 'head and body, both ways'],
  ['header:accept=json', 'of request or response; header:accept if any'], ['endpoint:web', 'part of its name'], ['from:203.0.113.', 'the visitor’s address'],
  ['is:error', 'http, websocket, connection, replay, open, cut, incomplete'], ['"some text"', 'anywhere in heads and bodies'], ['-status:2xx', 'all but these'],
];

function help() {
  const table = (rows, tag) => h('dl', { class: 'keys' }, rows.flatMap(([key, text]) => [h('dt', {}, h(tag, {}, key)), h('dd', {}, text)]));
  const dialog = $('dialog');
  dialog.className = 'help';
  dialog.setAttribute('aria-label', 'Keys and filters');
  put(dialog, h('div', { class: 'columns' }, h('section', {}, h('h2', {}, 'Keys'), table(KEYS, 'kbd')), h('section', {}, h('h2', {}, 'Filters'), h('p', {}, 'All words must hold.'), table(WORDS, 'code'))),
    h('form', { method: 'dialog', class: 'buttons' }, h('button', { class: 'main' }, 'Close')));
  dialog.showModal();
}

$('theme').addEventListener('click', nextTheme);
$('help').addEventListener('click', help);

// --- keys

const actions = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  Enter: () => (chosen ? $('detail').focus() : step(0)), Escape: () => (document.activeElement === $('list') || !$('detail').contains(document.activeElement) ? chosen && unchoose() : document.body.clientWidth <= 820 ? unchoose() : $('list').focus()),
  '/': () => $('filter').focus(), r: () => replay(), e: () => edit(), c: () => curl(), t: nextTheme, '?': help,
};

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('dialog').open) return;
  const isField = event.target.closest('input, textarea, select');
  if (isField) {
    if (event.key === 'Escape' || event.key === 'Enter') $('list').focus();
    return;
  }
  // Arrows scroll the details, and Enter presses buttons.
  if (event.key.startsWith('Arrow') && event.target !== $('list')) return;
  if (event.key === 'Enter' && event.target.closest('button, a, summary')) return;
  const action = actions[event.key];
  if (!action || (location.pathname === '/status' && !['t', '?'].includes(event.key))) return;
  event.preventDefault();
  action();
});

// --- views

function view() {
  const isStatus = location.pathname === '/status';
  $('traffic').hidden = isStatus;
  $('status').hidden = !isStatus;
  $('to-traffic').toggleAttribute('aria-current', !isStatus);
  $('to-status').toggleAttribute('aria-current', isStatus);
  document.title = isStatus ? 'Status · hithe inspector' : 'hithe inspector';
  if (isStatus) showStatus();
  else hideStatus();
}

for (const link of document.querySelectorAll('nav a, .brand')) {
  link.addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, '', link.getAttribute('href') + (link.pathname === '/' && chosen ? `#${chosen}` : ''));
    view();
  });
}
addEventListener('popstate', view);

paint();
showChips();
view();
listen();
const wanted = location.hash.slice(1);
if (/^[0-9a-f]{16}$/.test(wanted)) choose(wanted);
else clearDetail(endpoints);
