//! What was measured: the kinds of figures, one value of each for a peer and a round, and what follows from
//! several rounds.

use std::collections::BTreeMap;

use super::peers::Kind;

/// One row of the tables, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    HttpRate,
    HttpCpu,
    HttpsRate,
    HttpsCpu,
    Http2Rate,
    Http2Cpu,
    LatencyMedian,
    LatencyTail,
    ConnectRate,
    ConnectCpu,
    DownloadRate,
    DownloadCpu,
    UploadRate,
    UploadCpu,
    TunnelMemory,
    VisitorMemory,
    LoadedMemory,
    Start,
}

impl Figure {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::HttpRate => "HTTP/1.1, 32 connections: requests/s",
            Self::HttpCpu => "HTTP/1.1, 32 connections: CPU s/10k requests",
            Self::HttpsRate => "HTTPS/1.1, 32 connections: requests/s",
            Self::HttpsCpu => "HTTPS/1.1, 32 connections: CPU s/10k requests",
            Self::Http2Rate => "HTTP/2, 4 connections of 8 streams: requests/s",
            Self::Http2Cpu => "HTTP/2, 4 connections of 8 streams: CPU s/10k requests",
            Self::LatencyMedian => "HTTP/1.1, 1 connection: p50, µs",
            Self::LatencyTail => "HTTP/1.1, 1 connection: p99, µs",
            Self::ConnectRate => "new TLS connections/s",
            Self::ConnectCpu => "new TLS connections: CPU s/10k",
            Self::DownloadRate => "download, 8 streams: MB/s",
            Self::DownloadCpu => "download, 8 streams: CPU s/GiB",
            Self::UploadRate => "upload, 8 streams: MB/s",
            Self::UploadCpu => "upload, 8 streams: CPU s/GiB",
            Self::TunnelMemory => "memory of an idle tunnel, KiB private dirty",
            Self::VisitorMemory => "memory of an idle TLS visitor, KiB private dirty",
            Self::LoadedMemory => "memory after the load, MiB resident",
            Self::Start => "start of ssh to first answer, ms",
        }
    }

    pub(super) fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::HttpRate
                | Self::HttpsRate
                | Self::Http2Rate
                | Self::ConnectRate
                | Self::DownloadRate
                | Self::UploadRate
        )
    }
}

/// The values of one round.
pub(super) type Round = BTreeMap<(Figure, Kind), f64>;

/// All rounds of a run.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) rounds: Vec<Round>,
}

/// The middle of some values, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Results {
    /// The figures of which there is a value.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let mut figures: Vec<_> =
            self.rounds.iter().flat_map(|round| round.keys().map(|key| key.0)).collect();
        figures.sort();
        figures.dedup();
        figures
    }

    /// The peers of which there is a value.
    pub(super) fn peers(&self) -> Vec<Kind> {
        let mut peers: Vec<_> = self.rounds.iter().flat_map(|round| round.keys().map(|key| key.1)).collect();
        peers.sort();
        peers.dedup();
        peers
    }

    pub(super) fn value(&self, figure: Figure, peer: Kind) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(&(figure, peer)).copied()))
    }

    /// Ours divided by theirs, within each round.
    pub(super) fn ratio(&self, figure: Figure, peer: Kind) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let ours = round.get(&(figure, Kind::Hithed))?;
            let theirs = round.get(&(figure, peer)).filter(|value| **value > 0.0)?;
            Some(ours / theirs)
        }))
    }
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |index: usize| values.get(index).copied();
        // The two in the middle, which are one for an odd number.
        let median = f64::midpoint(at(last / 2)?, at(last.div_ceil(2))?);
        Some(Self { median, lowest: at(0)?, highest: at(last)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, lowest: 1.0, highest: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn a_ratio_compares_within_its_round() {
        let key = |peer| (Figure::HttpRate, peer);
        let round = |ours, theirs| Round::from([(key(Kind::Hithed), ours), (key(Kind::Nginx), theirs)]);
        let results = Results { rounds: vec![round(10.0, 5.0), round(100.0, 50.0)] };
        assert_eq!(results.ratio(Figure::HttpRate, Kind::Nginx).unwrap().median, 2.0);
        assert_eq!(results.ratio(Figure::HttpRate, Kind::Sshd), None);
    }
}
