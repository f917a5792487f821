// What all parts of the page use. Text of others enters the page as text nodes only.

export const $ = (id) => document.getElementById(id);

/** An element: h('a', {href: '/', class: 'x', onclick: f}, 'text', other, null). */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value') element.value = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const put = (element, ...children) => element.replaceChildren(...children.flat().filter((it) => it || it === 0));

export function duration(ms) {
  if (ms === null || ms === undefined) return '…';
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 100) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.floor((ms / 1000) % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  for (const unit of ['kB', 'MB', 'GB']) {
    bytes /= 1000;
    if (bytes < 1000 || unit === 'GB') return `${bytes < 10 ? bytes.toFixed(1) : bytes.toFixed(0)} ${unit}`;
  }
}

export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });
export const moment = (ms) => new Date(ms).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium', hour12: false });

let fading;
export function toast(text, isError) {
  const element = $('toast');
  put(element, text);
  element.classList.toggle('bad', !!isError);
  element.classList.add('shown');
  clearTimeout(fading);
  fading = setTimeout(() => element.classList.remove('shown'), isError ? 6000 : 2500);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https, other machines' browsers have no clipboard for pages.
    const area = h('textarea', { value: text, readonly: true, class: 'hidden' });
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  toast(`${what} copied`);
}

/** Changes something. The text of an error is thrown. */
export async function change(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).msg ?? `status ${response.status}`);
}

export const tone = (status) =>
  !status ? 'plain' : status < 200 ? 'info' : status < 300 ? 'good' : status < 400 ? 'moved' : status < 500 ? 'bad' : 'worse';
