//! A pseudo-terminal of 80 by 24, for clients that behave differently on one.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    far_end: File,
}

impl Terminal {
    /// Opens a new one. It is nobody's controlling terminal, so it sends no signals by itself.
    pub fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let path = std::ffi::OsStr::from_bytes(name.as_bytes());
        let far_end = rustix::fs::open(
            path,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .expect("the terminal's far end");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&far_end, size).expect("a terminal can be sized");
        Self { master: File::from(master), far_end: File::from(far_end) }
    }

    /// The end that the client gets as an input or output.
    pub fn end(&self) -> Stdio {
        Stdio::from(self.far_end.try_clone().expect("a second handle of the terminal"))
    }

    /// Gives up the far end; the client's copies are then the last.
    pub fn into_master(self) -> File {
        self.master
    }
}
