// How it stands with the endpoints, how fast they are, and with what configuration.

import { $, copy, duration, h, moment, put, size } from './dom.js';

let timer;

export function showStatus() {
  clearInterval(timer);
  update();
  timer = setInterval(update, 2000);
}

export function hideStatus() {
  clearInterval(timer);
}

async function update() {
  const response = await fetch('/ui/status').catch(() => null);
  if (!response?.ok) return;
  const status = await response.json();
  const gauge = h('meter', { min: 0, max: status.most || 1, value: status.memory, 'aria-label': 'Memory of the inspector' });
  gauge.value = status.memory;
  put($('status'),
    h('div', { class: 'tiles' },
      tile('Server', status.server || 'none'), tile('Version', status.version),
      tile('Endpoints', `${status.endpoints.filter((it) => it.phase === 'online').length} of ${status.endpoints.length} online`),
      h('div', { class: 'tile' }, h('span', {}, 'Recorded'), h('b', {}, `${status.entries} · ${size(status.memory)} of ${size(status.most)}`), gauge,
        status.left_out ? h('small', {}, `${status.left_out} only counted: more than 1000 a second`) : null)),
    status.endpoints.map(endpoint),
    h('section', { class: 'card' }, h('header', {}, h('h2', {}, 'Configuration')),
      status.configuration.length
        ? h('table', { class: 'fields' }, h('tbody', {}, status.configuration.map(([name, value]) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', {}, value)))))
        : h('p', { class: 'quiet-text' }, 'All as by default.')));
}

const tile = (name, value) => h('div', { class: 'tile' }, h('span', {}, name), h('b', {}, value));

const PHASES = { online: 'online', connecting: 'connecting', waiting: 'waiting to connect again', ended: 'ended' };

function endpoint(it) {
  const facts = [
    ['Leads to', it.upstream], ['Kind', it.kind], ['Inspected', it.inspect ? 'yes' : 'no'], ['Account', it.account],
    ['Latency', it.latency === null ? null : duration(it.latency)], [it.phase === 'waiting' ? 'Next try' : 'Since', it.at && moment(it.at)],
  ].filter(([, value]) => value);
  return h('section', { class: 'card', 'aria-label': it.name },
    h('header', {}, h('span', { class: `dot ${it.phase}` }), h('h2', {}, it.name), h('span', { class: 'first-line' }, PHASES[it.phase])),
    it.why ? h('p', { class: 'notice warn' }, it.why) : null,
    it.urls.length ? h('ul', { class: 'urls' }, it.urls.map((url) => h('li', {}, /^https?:/.test(url) ? h('a', { href: url, target: '_blank', rel: 'noreferrer noopener' }, url) : h('code', {}, url), h('button', { type: 'button', class: 'quiet', onclick: () => copy(url, 'URL') }, 'Copy')))) : null,
    h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
    figures([['Connections', it.connections], ['HTTP requests', it.http]]));
}

function figures(rows) {
  const rate = (value) => (value < 0.005 ? '0' : value.toFixed(2));
  const columns = [['count', 'Total', String], ['gauge', 'Open', String], ['rate1', '1 min', rate], ['rate5', '5 min', rate], ['rate15', '15 min', rate], ['p50', 'p50', duration], ['p90', 'p90', duration], ['p95', 'p95', duration], ['p99', 'p99', duration]];
  const cell = (row, [key, , show]) => {
    const isUnknown = key.startsWith('p') && !row.count;
    return h('td', {}, isUnknown || (key === 'gauge' && row.isHttp) ? '–' : show(row[key]));
  };
  return h('div', { class: 'scroll' }, h('table', { class: 'figures' },
    h('thead', {},
      h('tr', {}, h('td', {}), h('td', { colspan: 2 }), h('th', { colspan: 3, scope: 'colgroup' }, 'Each second, over'), h('th', { colspan: 4, scope: 'colgroup' }, 'Lasted')),
      h('tr', {}, h('td', {}), columns.map(([, name]) => h('th', { scope: 'col' }, name)))),
    h('tbody', {}, rows.map(([name, row]) => h('tr', {}, h('th', { scope: 'row' }, name), columns.map((column) => cell({ ...row, isHttp: name !== 'Connections' }, column)))))));
}
