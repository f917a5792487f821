//! Screens as plain text.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::Status;
use crate::console::Numbers;

fn endpoint(name: &str, url: &str, upstream: &str) -> EndpointStatus {
    EndpointStatus {
        name: name.into(),
        kind: "http",
        upstream: upstream.into(),
        inspect: true,
        urls: vec![url.into()],
        account: Some("ada".into()),
        latency: Some(Duration::from_millis(23)),
        phase: Phase::Online { since: SystemTime::UNIX_EPOCH },
        unreachable: None,
    }
}

fn app() -> App {
    let mut app = App::new(Look::default());
    app.status = Status {
        server: "tunnel.example.com:2222".into(),
        web: Some("http://127.0.0.1:4040".into()),
        endpoints: vec![endpoint("command_line", "https://otter.example.com", "http://localhost:80")],
    };
    app.numbers = Numbers {
        total: 12,
        open: 1,
        rate1: 0.25,
        rate5: 0.1,
        p50: Duration::from_millis(1500),
        p90: Duration::from_secs(20),
    };
    for (path, status) in [("/old", Some(200)), ("/b\u{fc}cher\x1b[2J", Some(404)), ("/new", None)] {
        app.add(Line {
            when: SystemTime::UNIX_EPOCH + Duration::from_secs(12 * 3600 + 61),
            endpoint: "command_line".into(),
            method: "GET".into(),
            path: path.into(),
            status,
            duration: Duration::from_micros(3200),
        });
    }
    app
}

fn terminal(app: &App, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame)).unwrap();
    terminal
}

/// The screen without blanks at the ends of its rows.
fn screen(app: &App, width: u16, height: u16) -> String {
    let terminal = terminal(app, width, height);
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let mut text = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += u16::try_from(Span::raw(symbol).width().max(1)).unwrap();
        }
        text.trim_end().to_owned()
    };
    (0..height).map(row).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[test]
fn a_usual_screen_shows_everything() {
    assert_eq!(
        screen(&app(), 80, 24),
        "\
hithe                                                  q quit  u QR code  ? help

Status          online
Account         ada
Version         VERSION
Server          tunnel.example.com:2222
Latency         23ms
Web Interface   http://127.0.0.1:4040
Forwarding      https://otter.example.com -> http://localhost:80

Connections     ttl     opn     rt1     rt5     p50     p90
                12      1       0.25    0.10    1.50    20.00

Requests
12:01:01 GET     /new                                                 -    3.2ms
12:01:01 GET     /b\\u{fc}cher\\u{1b}[2J                              404    3.2ms
12:01:01 GET     /old                                               200    3.2ms"
            .replace("VERSION", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_small_screen_shows_what_matters() {
    assert_eq!(
        screen(&app(), 60, 9),
        "\
Status          online
Server          tunnel.example.com:2222
Web Interface   http://127.0.0.1:4040
Forwarding      https://otter.example.com -> http://localho\u{2026}
Connections     ttl    opn    rt1    rt5    p50    p90
                12     1      0.25   0.10   1.50   20.00
Requests
12:01:01 GET     /new                             -    3.2ms
12:01:01 GET     /b\\u{fc}cher\\u{1b}[2J          404    3.2ms"
    );
    assert_eq!(screen(&app(), 20, 2), "online\nhttps://otter.examp\u{2026}");
    assert_eq!(screen(&app(), 40, 1), "https://otter.example.com -> http://loc\u{2026}");
}

#[test]
fn no_size_is_too_small_for_any_view() {
    let mut app = app();
    for view in [View::Main, View::QrCode, View::Help] {
        app.view = view;
        for (width, height) in [(1, 1), (2, 1), (1, 40), (200, 1), (300, 80), (20, 5), (47, 7), (48, 10)] {
            terminal(&app, width, height);
        }
    }
}

#[test]
fn what_has_two_columns_is_cut_where_it_ends() {
    let mut app = app();
    app.status.endpoints[0].upstream = "file:///\u{6587}\u{66f8}\u{6587}\u{66f8}/b\u{fc}cher\u{202e}".into();
    let shown = screen(&app, 80, 24);
    assert!(shown.contains(" -> file:///\u{6587}\u{66f8}\u{6587}\u{66f8}/b\u{fc}cher\\u{202e}"), "{shown}");
    for width in 48..75 {
        let shown = screen(&app, width, 24);
        let row = shown.lines().find(|row| row.starts_with("Forwarding")).unwrap();
        assert!(Span::raw(row).width() <= usize::from(width), "{row}");
        assert!(row.ends_with('\u{2026}'), "{row}");
    }
}

#[test]
fn a_service_that_cannot_be_reached_is_shown() {
    let mut app = app();
    app.status.endpoints[0].unreachable = Some("nothing listens there".into());
    let status = "Status          online; the service cannot be reached: nothing listens there";
    assert!(screen(&app, 80, 24).contains(status));
    app.status.endpoints.push(endpoint("b", "https://b.test", "b"));
    let shown = screen(&app, 100, 24);
    assert!(shown.contains("Status          online\n"), "{shown}");
    assert!(shown.contains("-> http://localhost:80  unreachable: nothing listens there"), "{shown}");
}

#[test]
fn a_loss_counts_down_and_tells_why() {
    let mut app = app();
    let now = SystemTime::now();
    let until = now + Duration::from_millis(2500);
    app.status.endpoints[0].phase = Phase::Waiting { until, why: "connection reset\x1b[2J".into() };
    let row = |app: &App, now| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| main(app, frame, now)).unwrap();
        let buffer = terminal.backend().buffer();
        (0..80).map(|x| buffer[(x, 2)].symbol()).collect::<String>().trim_end().to_owned()
    };
    assert_eq!(row(&app, now), "Status          reconnecting in 3 s: connection reset\\u{1b}[2J");
    assert_eq!(row(&app, until), "Status          reconnecting now: connection reset\\u{1b}[2J");
    assert!(app.counts_down());
    app.status.endpoints.push(endpoint("b", "https://b.test", "b"));
    assert_eq!(row(&app, now), "Status          1 of 2 online");
    app.status.endpoints[0].phase = Phase::Ended { why: "refused".into() };
    assert!(
        screen(&app, 100, 24).contains("https://otter.example.com -> http://localhost:80  ended: refused")
    );
}

#[test]
fn many_endpoints_leave_room_for_the_rest() {
    let mut app = app();
    app.status.endpoints =
        (0..40).map(|number| endpoint("x", &format!("https://n{number}.test"), "localhost:80")).collect();
    let shown = screen(&app, 80, 24);
    assert!(shown.contains("and 28 more") || shown.contains("https://n5.test"), "{shown}");
    for row in ["Status          online", "Connections", "Requests", "/old"] {
        assert!(shown.contains(row), "{row} in {shown}");
    }
}

#[test]
fn one_without_a_url_yet_is_known_by_its_name() {
    let mut app = app();
    app.status.endpoints[0].urls.clear();
    app.status.endpoints[0].phase = Phase::Connecting;
    assert!(screen(&app, 80, 24).contains("Forwarding      command_line -> http://localhost:80  connecting"));
    assert_eq!(title(&app), None);
}

#[test]
fn the_list_is_scrolled_and_tells_what_is_above() {
    let mut app = app();
    app.scrolled = 2;
    app.missed = 7;
    let shown = screen(&app, 80, 24);
    assert!(shown.contains("Requests  2 newer above  7 not shown"), "{shown}");
    assert!(shown.contains("/old") && !shown.contains("/new"), "{shown}");
}

#[test]
fn the_qr_code_is_dark_on_light_or_takes_the_screen_for_a_dark_one() {
    let mut app = app();
    app.view = View::QrCode;
    let shown = screen(&app, 80, 24);
    assert!(shown.contains("\u{2588}\u{2580}\u{2580}\u{2580}\u{2580}\u{2580}\u{2588}"), "{shown}");
    assert!(shown.ends_with("https://otter.example.com"), "{shown}");
    let lit = terminal(&app, 80, 24);
    let corner = &lit.backend().buffer()[(0, 0)];
    assert_eq!((corner.fg, corner.bg), (Color::Black, Color::White));
    app.look.has_colors = false;
    assert!(screen(&app, 80, 24).starts_with('\u{2588}'));
    assert!(screen(&app, 30, 10).contains("too small"));
}

#[test]
fn without_colors_there_are_none() {
    let mut app = app();
    let colored = |app: &App| {
        let terminal = terminal(app, 80, 24);
        let cells = terminal.backend().buffer().content();
        cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(colored(&app));
    app.look.has_colors = false;
    app.look.background = ConsoleColor::Black;
    assert!(!colored(&app));
    app.look.has_colors = true;
    let black = terminal(&app, 80, 24);
    assert!(black.backend().buffer().content().iter().all(|cell| cell.bg == Color::Black));
}
