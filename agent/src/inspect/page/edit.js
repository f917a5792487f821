// Sending a request again, changed; and as a command for a terminal.

import { $, change, h, put, toast } from './dom.js';
import { load } from './body.js';

const OF_THE_CONNECTION = ['connection', 'keep-alive', 'proxy-connection', 'upgrade', 'expect', 'te', 'transfer-encoding', 'content-length'];
const plain = (headers) => headers.filter(([name]) => !OF_THE_CONNECTION.includes(name.toLowerCase()));

/** Its text, or null if the body is none that a field can hold. */
async function text(entry) {
  if (!entry.request.body_size) return '';
  if (entry.request.encoding || entry.request.is_truncated) return null;
  const { bytes } = await load(entry, 'request', 'body', entry.request.body_size);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    // A field would change these.
    return /\0|\r(?!\n)/.test(text) || text.includes('\r\n') ? null : text;
  } catch {
    return null;
  }
}

export async function editDialog(entry, replayed) {
  const body = await text(entry).catch(() => null);
  const method = h('input', { value: entry.method, required: true, spellcheck: 'false', 'aria-label': 'Method', size: 8 });
  const target = h('input', { value: entry.target, required: true, spellcheck: 'false', 'aria-label': 'Path' });
  const headers = h('textarea', { rows: 8, spellcheck: 'false', value: plain(entry.request.headers).map(([name, value]) => `${name}: ${value}`).join('\n') });
  const content = h('textarea', { rows: 10, spellcheck: 'false', value: body ?? '', disabled: body === null });
  const recorded = h('input', { type: 'checkbox', onchange: () => (content.disabled = recorded.checked) });
  recorded.checked = body === null;
  const failure = h('p', { class: 'error', role: 'alert', hidden: true });
  const dialog = $('dialog');

  const send = async (event) => {
    event.preventDefault();
    const lines = headers.value.split('\n').map((line) => line.trim()).filter(Boolean);
    const wrong = lines.find((line) => line.indexOf(':') < 1);
    failure.hidden = true;
    try {
      if (wrong) throw new Error(`“${wrong}” is no header: a name, a colon, a value`);
      const pairs = lines.map((line) => [line.slice(0, line.indexOf(':')).trim(), line.slice(line.indexOf(':') + 1).trim()]);
      replayed(entry.id);
      await change('POST', '/ui/replay', { id: entry.id, edited: { method: method.value.trim(), target: target.value.trim(), headers: pairs, body: recorded.checked ? null : content.value } });
      dialog.close();
      toast('Sent');
    } catch (error) {
      failure.hidden = false;
      put(failure, error.message);
    }
  };
  dialog.className = 'edit';
  dialog.setAttribute('aria-label', 'Edit and replay');
  put(dialog, h('form', { onsubmit: send }, h('h2', {}, 'Edit & replay'),
    h('div', { class: 'line' }, method, target),
    h('label', {}, h('span', {}, 'Headers, one a line'), headers),
    h('label', {}, h('span', {}, 'Body'), content),
    entry.request.body_size && !entry.request.is_truncated ? h('label', { class: 'check' }, recorded, h('span', {}, body === null ? 'Send the recorded body, whose bytes a text field would change' : 'Send the recorded body')) : null,
    h('p', { class: 'quiet-text' }, 'It goes from here straight to the upstream. Length and connection headers are set anew.'), failure,
    h('div', { class: 'buttons' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), h('button', { class: 'main' }, 'Send'))));
  dialog.showModal();
  target.focus();
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export async function curlOf(entry, endpoints) {
  const endpoint = endpoints.find((it) => it.name === entry.endpoint);
  const base = endpoint?.urls.find((url) => /^https?:/.test(url)) ?? `http://${entry.host ?? 'localhost'}`;
  // The server sets these by itself.
  const skipped = ['host', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'accept-encoding'];
  const parts = [`curl ${quoted(base.replace(/\/$/, '') + entry.target)}`];
  const body = await text(entry).catch(() => null);
  const usual = entry.request.body_size ? 'POST' : 'GET';
  if (entry.method === 'HEAD') parts.push('--head');
  else if (entry.method !== usual) parts.push(`-X ${quoted(entry.method)}`);
  if (entry.request.headers.some(([name]) => name.toLowerCase() === 'accept-encoding')) parts.push('--compressed');
  for (const [name, value] of plain(entry.request.headers)) if (!skipped.includes(name.toLowerCase())) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body) parts.push(`--data-raw ${quoted(body)}`);
  else if (body === null) parts.push(`--data-binary @${entry.id}-request.bin`);
  return parts.join(' \\\n  ');
}
