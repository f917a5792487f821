//! The page that lists a folder: sorted by links, without scripts, readable on a phone.

use std::cmp::Ordering;
use std::fmt::Write as _;

use http::{Response, StatusCode};

use super::find::{Entries, Entry, MAX_ENTRIES, Segments, encode};
use super::page::{self, Body, escape};

/// `query` is `sort=size&order=desc` or nothing; anything else counts as nothing.
pub(super) fn answer(segments: &Segments, entries: Entries, query: Option<&str>) -> Response<Body> {
    let Entries { mut entries, is_cut } = entries;
    let order = Order::parse(query.unwrap_or_default());
    entries.sort_by(|a, b| order.compare(a, b));

    let mut content = format!("<h1>{}</h1>\n<table><thead><tr>", way(segments));
    for (column, title) in [(Column::Name, "Name"), (Column::Size, "Size"), (Column::Time, "Modified (UTC)")]
    {
        // Writing to a string cannot fail.
        let _ = write!(content, "<th scope=\"col\">{}</th>", order.link(column, title));
    }
    content.push_str("</tr></thead>\n<tbody>\n");
    if !segments.names().is_empty() {
        content.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in &entries {
        row(&mut content, entry);
    }
    content.push_str("</tbody></table>\n");
    if entries.is_empty() {
        content.push_str("<p>This folder is empty.</p>\n");
    }
    if is_cut {
        let _ = writeln!(content, "<p>There are more; these are {MAX_ENTRIES} of them.</p>");
    }
    let name = segments.names().last().map_or("/".into(), |name| name.to_string_lossy());
    page::html(StatusCode::OK, &escape(&name), &content)
}

/// The path, each part of which leads to its folder.
fn way(segments: &Segments) -> String {
    let mut way = String::from("<a href=\"/\">/</a>");
    let mut href = String::from("/");
    for name in segments.names() {
        let _ = write!(href, "{}/", encode(name));
        let _ = write!(way, "<wbr><a href=\"{href}\"><bdi>{}</bdi>/</a>", escape(&name.to_string_lossy()));
    }
    way
}

fn row(content: &mut String, entry: &Entry) {
    let slash = if entry.is_folder { "/" } else { "" };
    let size = if entry.is_folder { String::new() } else { size_of(entry.size) };
    let time = entry.modified.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let time = time.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
    let _ = writeln!(
        content,
        // A name with a colon is no scheme behind `./`.
        "<tr><td><a href=\"./{}{slash}\"><bdi>{}</bdi>{slash}</a></td><td>{size}</td><td>{time}</td></tr>",
        encode(&entry.name),
        escape(&entry.name.to_string_lossy()),
    );
}

/// `999 B`, `1.5 KiB`
fn size_of(bytes: u64) -> String {
    let mut unit = 1;
    for name in ["B", "KiB", "MiB", "GiB", "TiB"] {
        let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
        if tenths < 10_240 || name == "TiB" {
            let is_whole = name == "B" || tenths >= 1000;
            return if is_whole {
                format!("{} {name}", tenths / 10)
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
        unit *= 1024;
    }
    String::new()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Size,
    Time,
}

#[derive(Clone, Copy)]
struct Order {
    by: Column,
    is_reverse: bool,
}

impl Order {
    fn parse(query: &str) -> Self {
        let mut order = Self { by: Column::Name, is_reverse: false };
        for pair in query.split('&') {
            match pair {
                "sort=size" => order.by = Column::Size,
                "sort=time" => order.by = Column::Time,
                "order=desc" => order.is_reverse = true,
                _ => {}
            }
        }
        order
    }

    /// Folders come first, whatever the order.
    fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let by = match self.by {
            Column::Name => Ordering::Equal,
            Column::Size => a.size.cmp(&b.size),
            Column::Time => a.modified.cmp(&b.modified),
        };
        let by = by.then_with(|| sortable(a).cmp(&sortable(b))).then_with(|| a.name.cmp(&b.name));
        let by = if self.is_reverse { by.reverse() } else { by };
        b.is_folder.cmp(&a.is_folder).then(by)
    }

    fn link(self, column: Column, title: &str) -> String {
        let is_this = self.by == column;
        let sort = match column {
            Column::Name => "name",
            Column::Size => "size",
            Column::Time => "time",
        };
        let (order, arrow) = match (is_this, self.is_reverse) {
            (true, false) => ("desc", " \u{2191}"),
            (true, true) => ("asc", " \u{2193}"),
            (false, _) => ("asc", ""),
        };
        format!("<a href=\"?sort={sort}&amp;order={order}\">{title}{arrow}</a>")
    }
}

fn sortable(entry: &Entry) -> String {
    entry.name.to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_while_they_are_small() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (200 << 10, "200 KiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size_of(bytes), shown, "{bytes}");
        }
    }
}
