//! How the full-screen view looks: `App` in, characters out.
//!
//! What visitors and servers wrote goes through `printable`; what the person at this terminal wrote keeps its script.

use std::time::{Duration, SystemTime};

use hithe_cli_parser::printable;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Row, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::app::{App, View};
use super::{Line, qr};
use crate::config::ConsoleColor;
use crate::{EndpointStatus, Phase};

/// Colours and clock.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) has_colors: bool,
    pub(crate) background: ConsoleColor,
    pub(crate) zone: TimeZone,
}

impl Default for Look {
    fn default() -> Self {
        Self { has_colors: true, background: ConsoleColor::Transparent, zone: TimeZone::UTC }
    }
}

impl Look {
    /// Without colours where `NO_COLOR` is set and not empty (no-color.org), or the terminal says that it is dumb.
    pub(crate) fn of_this_terminal(background: ConsoleColor) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { has_colors: !is_set("NO_COLOR") && !is_dumb, background, zone: TimeZone::system() }
    }

    fn color(&self, color: Color) -> Style {
        if self.has_colors { Style::new().fg(color) } else { Style::new() }
    }

    fn base(&self) -> Style {
        match self.background {
            ConsoleColor::Black if self.has_colors => Style::new().fg(Color::White).bg(Color::Black),
            _ => Style::new(),
        }
    }
}

/// Of the terminal's window.
pub(super) fn title(app: &App) -> Option<String> {
    first_url(app).map(|url| format!("hithe {}", printable(url)))
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    frame.render_widget(Block::new().style(app.look.base()), area);
    match app.view {
        View::Main => main(app, frame, SystemTime::now()),
        View::QrCode => qr_code(app, frame),
        View::Help => {
            frame.render_widget(Clear, area);
            frame.render_widget(Paragraph::new(HELP).style(app.look.base()), area);
        }
    }
}

fn main(app: &App, frame: &mut Frame<'_>, now: SystemTime) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut rows = head(app, width, height, now);
    // Requests may push away what is less important, on a screen that is not too small for both.
    let wanted = if height >= 8 { (height / 4).min(app.requests.len().max(1)) + 1 } else { 0 };
    shrink(&mut rows, height.saturating_sub(wanted));
    let mut rows: Vec<Row<'_>> = rows.into_iter().map(|(_, row)| row).collect();
    if height > rows.len() + 1 {
        rows.push(requests_title(app));
        let free = height - rows.len();
        // Names stand in a column of their own, if there are several.
        let names = app.status.endpoints.iter().map(|it| own(&it.name).chars().count());
        let column = if app.status.endpoints.len() > 1 { names.max().unwrap_or_default().min(12) } else { 0 };
        rows.extend(
            app.requests.iter().skip(app.scrolled).take(free).map(|line| request(app, line, column, width)),
        );
    }
    frame.render_widget(Paragraph::new(Text::from(rows)), area);
}

/// The more important, the longer a row stays when the screen is small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Blank,
    Title,
    Version,
    Account,
    Latency,
    Server,
    Web,
    Connections,
    Forwarding,
    Status,
    FirstForwarding,
}

type Rows<'a> = Vec<(Weight, Row<'a>)>;

/// Takes rows out until so many are left.
fn shrink(rows: &mut Rows<'_>, wanted: usize) {
    while rows.len() > wanted {
        let Some(least) = rows.iter().map(|(weight, _)| *weight).min() else { return };
        if least == Weight::Forwarding {
            let last = rows.iter().rposition(|(weight, _)| *weight == least);
            last.map(|last| rows.remove(last));
        } else if least == Weight::FirstForwarding {
            return;
        } else {
            rows.retain(|(weight, _)| *weight != least);
        }
    }
}

fn head<'a>(app: &App, width: usize, height: usize, now: SystemTime) -> Rows<'a> {
    let look = &app.look;
    let status = &app.status;
    let field = |name: &str, value: Vec<Span<'a>>| {
        // Where every column counts, values speak for themselves.
        let label = if width < NARROW { String::new() } else { format!("{name:<LABEL$}") };
        let mut spans = vec![Span::styled(label, look.color(Color::Cyan))];
        spans.extend(value);
        cut(Row::from(spans), width)
    };
    let plain = |text: &str| vec![Span::raw(text.to_owned())];
    let mut rows = vec![
        (Weight::Title, heading(look, width)),
        (Weight::Blank, Row::default()),
        (Weight::Status, field("Status", vec![summary(look, &status.endpoints, now)])),
    ];
    if let Some(account) = status.endpoints.iter().find_map(|endpoint| endpoint.account.as_deref()) {
        rows.push((Weight::Account, field("Account", plain(&printable(account)))));
    }
    rows.push((Weight::Version, field("Version", plain(env!("CARGO_PKG_VERSION")))));
    rows.push((Weight::Server, field("Server", plain(&own(&status.server)))));
    if let Some(latency) = status.endpoints.iter().filter_map(|endpoint| endpoint.latency).max() {
        rows.push((Weight::Latency, field("Latency", plain(&span(latency)))));
    }
    if let Some(web) = &status.web {
        rows.push((Weight::Web, field("Web Interface", plain(&printable(web)))));
    }
    let forwards: Vec<_> =
        status.endpoints.iter().flat_map(|endpoint| forwards(look, endpoint, now)).collect();
    let most = (height / 2).max(1);
    let more = forwards.len().saturating_sub(most);
    for (number, forward) in forwards.into_iter().take(most).enumerate() {
        let weight = if number == 0 { Weight::FirstForwarding } else { Weight::Forwarding };
        rows.push((weight, field(if number == 0 { "Forwarding" } else { "" }, forward)));
    }
    if more > 0 {
        rows.push((Weight::Forwarding, field("", plain(&format!("and {more} more")))));
    }
    rows.push((Weight::Blank, Row::default()));
    let [titles, values] = connections(app, if width < 66 { 7 } else { 8 });
    rows.push((Weight::Connections, field("Connections", plain(&titles))));
    rows.push((Weight::Connections, field("", plain(&values))));
    rows.push((Weight::Blank, Row::default()));
    rows
}

fn heading<'a>(look: &Look, width: usize) -> Row<'a> {
    let keys = "q quit  u QR code  ? help";
    let name = Span::styled("hithe", look.color(Color::Green).add_modifier(Modifier::BOLD));
    let Some(gap) = width.checked_sub("hithe".len() + keys.len()).filter(|gap| *gap > 1) else {
        return cut(Row::from(name), width);
    };
    Row::from(vec![
        name,
        Span::raw(" ".repeat(gap)),
        Span::styled(keys, Style::new().add_modifier(Modifier::DIM)),
    ])
}

fn summary<'a>(look: &Look, endpoints: &[EndpointStatus], now: SystemTime) -> Span<'a> {
    let online = endpoints.iter().filter(|it| matches!(it.phase, Phase::Online { .. })).count();
    match endpoints {
        [] => Span::raw("no endpoints"),
        [EndpointStatus { phase: Phase::Online { .. }, unreachable: Some(why), .. }] => {
            let text = format!("online; the service cannot be reached: {}", printable(why));
            Span::styled(text, look.color(Color::Red))
        }
        [one] => phase(look, &one.phase, now),
        all if all.len() == online => Span::styled("online", look.color(Color::Green)),
        all => {
            let color = if online == 0 { Color::Red } else { Color::Yellow };
            Span::styled(format!("{online} of {} online", all.len()), look.color(color))
        }
    }
}

fn phase<'a>(look: &Look, phase: &Phase, now: SystemTime) -> Span<'a> {
    let (text, color) = match phase {
        Phase::Connecting => ("connecting".to_owned(), Color::Yellow),
        Phase::Online { .. } => ("online".to_owned(), Color::Green),
        Phase::Waiting { until, why } => {
            let left = until.duration_since(now).unwrap_or_default();
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let when = if seconds == 0 { "now".to_owned() } else { format!("in {seconds} s") };
            (format!("reconnecting {when}: {}", printable(why)), Color::Yellow)
        }
        Phase::Ended { why } => (format!("ended: {}", printable(why)), Color::Red),
    };
    Span::styled(text, look.color(color))
}

/// Its URLs, and where they lead.
fn forwards<'a>(look: &Look, endpoint: &EndpointStatus, now: SystemTime) -> Vec<Vec<Span<'a>>> {
    let is_online = matches!(endpoint.phase, Phase::Online { .. });
    let upstream = format!(" -> {}", own(&endpoint.upstream));
    let style = if is_online { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let named = [own(&endpoint.name)];
    let urls = if endpoint.urls.is_empty() { &named[..] } else { &endpoint.urls[..] };
    let show = |url: &String| {
        let url = if endpoint.urls.is_empty() { url.clone() } else { printable(url).into_owned() };
        let mut spans = vec![Span::styled(url, style), Span::raw(upstream.clone())];
        if !is_online {
            spans.push(Span::raw("  "));
            spans.push(phase(look, &endpoint.phase, now));
        } else if let Some(why) = &endpoint.unreachable {
            spans.push(Span::styled(format!("  unreachable: {}", printable(why)), look.color(Color::Red)));
        }
        spans
    };
    urls.iter().map(show).collect()
}

fn connections(app: &App, column: usize) -> [String; 2] {
    let numbers = &app.numbers;
    let column = |text: String| format!("{text:<column$}");
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let values = [
        numbers.total.to_string(),
        numbers.open.to_string(),
        format!("{:.2}", numbers.rate1),
        format!("{:.2}", numbers.rate5),
        seconds(numbers.p50),
        seconds(numbers.p90),
    ];
    let titles = ["ttl", "opn", "rt1", "rt5", "p50", "p90"];
    [titles.map(|title| column(title.to_owned())).concat(), values.map(column).concat()]
}

fn requests_title<'a>(app: &App) -> Row<'a> {
    let mut title = String::from("Requests");
    if app.scrolled > 0 {
        title.push_str(&format!("  {} newer above", app.scrolled));
    }
    if app.missed > 0 {
        title.push_str(&format!("  {} not shown", app.missed));
    }
    Row::styled(title, app.look.color(Color::Cyan))
}

fn request<'a>(app: &App, line: &Line, column: usize, width: usize) -> Row<'a> {
    let when = Timestamp::try_from(line.when).map(|time| time.to_zoned(app.look.zone.clone()));
    let when = when.map(|time| time.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    let (status, color) = match line.status {
        Some(status) => (status.to_string(), class(status)),
        None => ("-".to_owned(), Color::Red),
    };
    let endpoint = match column {
        0 => String::new(),
        _ => {
            let name: String = own(&line.endpoint).chars().take(column).collect();
            format!("{name:<column$} ")
        }
    };
    let left = format!("{when} {endpoint}{:<7} ", printable(&line.method));
    let right = format!(" {:>8}", span(line.duration));
    let is_wide = width >= NARROW;
    let left = if is_wide { left } else { format!("{} ", printable(&line.method)) };
    let right = if is_wide { right } else { String::new() };
    // The path gives way, since the rest tells what became of it.
    let room = width.saturating_sub(Span::raw(left.as_str()).width() + right.len() + status.len() + 1);
    let path = shorten(&printable(&line.path), room);
    let row = Row::from(vec![
        Span::raw(left),
        Span::raw(format!("{path:<room$} ")),
        Span::styled(status, app.look.color(color)),
        Span::styled(right, Style::new().add_modifier(Modifier::DIM)),
    ]);
    cut(row, width)
}

fn class(status: u16) -> Color {
    match status {
        500.. => Color::Red,
        400.. => Color::Yellow,
        300.. => Color::Cyan,
        _ => Color::Green,
    }
}

fn qr_code(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    frame.render_widget(Clear, area);
    let Some(url) = first_url(app) else {
        return frame.render_widget(Paragraph::new("There is no URL yet.").style(app.look.base()), area);
    };
    let shown = printable(url).into_owned();
    // With colours it is dark on light, as on paper. Without, the screen is taken for a dark one.
    let rows = qr::rows(url, !app.look.has_colors).unwrap_or_default();
    let (width, height) = (rows.first().map_or(0, |row| row.chars().count()), rows.len());
    if rows.is_empty() || width > area.width.into() || height > area.height.into() {
        let sorry = format!("{shown}\nThe window is too small for the QR code: it takes {width} x {height}.");
        let sorry = Paragraph::new(sorry).style(app.look.base()).wrap(ratatui::widgets::Wrap { trim: true });
        return frame.render_widget(sorry, area);
    }
    let dots =
        if app.look.has_colors { Style::new().fg(Color::Black).bg(Color::White) } else { Style::new() };
    let code: Vec<_> = rows.into_iter().map(|row| Row::styled(row, dots)).collect();
    // Sizes were compared with u16 above.
    let (width, height) =
        (u16::try_from(width).unwrap_or_default(), u16::try_from(height).unwrap_or_default());
    frame.render_widget(Block::new().style(app.look.base()), area);
    frame.render_widget(Paragraph::new(code), Rect { width, height, ..area });
    if area.height > height {
        let below = Rect { y: area.y + height, height: 1, ..area };
        frame.render_widget(Paragraph::new(cut(Row::from(shown), area.width.into())), below);
    }
}

/// One that a phone can open, if there is one.
fn first_url(app: &App) -> Option<&str> {
    let urls = || app.status.endpoints.iter().flat_map(|endpoint| &endpoint.urls);
    urls().find(|url| url.starts_with("http")).or_else(|| urls().next()).map(String::as_str)
}

/// What the person at this terminal wrote: only what would steer the terminal, or turn text around, is escaped.
pub(super) fn own(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars().take(1024) {
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// `3.2ms`, `45ms`, `1.25s`
fn span(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1}ms"),
        ..1000.0 => format!("{millis:.0}ms"),
        _ => format!("{:.2}s", millis / 1000.0),
    }
}

/// Cuts printable ASCII.
fn shorten(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    if room > 0 {
        cut.push(MORE);
    }
    cut
}

/// Marks a row that goes on beyond the screen. Columns are counted as the terminal does, in which a character may have two.
fn cut(row: Row<'_>, width: usize) -> Row<'_> {
    if row.width() <= width {
        return row;
    }
    let mut room = width.saturating_sub(1);
    let mut spans = Vec::new();
    for piece in row.spans {
        let style = piece.style;
        let mut kept = String::new();
        for character in piece.content.chars() {
            let columns = Span::raw(character.to_string()).width();
            if columns > room {
                room = 0;
                break;
            }
            room -= columns;
            kept.push(character);
        }
        spans.push(Span::styled(kept, style));
        if room == 0 {
            break;
        }
    }
    if width > 0 {
        spans.push(Span::raw(MORE.to_string()));
    }
    Row::from(spans)
}

const MORE: char = '\u{2026}';
const LABEL: usize = 16;
const NARROW: usize = 48;

const HELP: &str = "\
Keys
  q, Ctrl-C        quit: the endpoints go
  u                QR code of the first URL
  Up, Down         through the requests
  PgUp, PgDn       ten at a time
  Home, End        the newest, the oldest
  Ctrl-L           draw anew
  ?, Esc           this help, and back

Connections
  ttl opn          all, and those open now
  rt1 rt5          a second, over one and five minutes
  p50 p90          seconds that half of them, and
                   nine in ten, lasted at most";

#[cfg(test)]
mod tests;
