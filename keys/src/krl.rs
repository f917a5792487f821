//! Key revocation lists of `ssh-keygen -k` (PROTOCOL.krl).
//!
//! What is not understood makes the whole list unreadable, as in sshd: a revocation is never passed over. Signed lists
//! are not read either (OpenSSH has refused them since 9.4).

use std::collections::HashSet;

use ring::digest;
use russh::keys::{Certificate, PublicKey};

/// The first bytes of a list.
pub(crate) const MAGIC: &[u8] = b"SSHKRL\n\0";

const FORMAT: u32 = 1;
/// Bits of one bitmap; OpenSSH has the same bound.
const MAX_BITMAP: usize = 1 << 24;

/// What a list revokes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Krl {
    /// Digests of public keys. Those that are listed in full are here too.
    sha256: HashSet<Vec<u8>>,
    sha1: HashSet<Vec<u8>>,
    certificates: Vec<Certificates>,
}

/// The revoked certificates of one authority.
#[derive(Clone, Debug, Default)]
struct Certificates {
    /// The digest of its key; nothing means every authority.
    authority: Option<Vec<u8>>,
    /// First and last, in order and without overlap.
    serials: Vec<(u64, u64)>,
    bitmaps: Vec<Bitmap>,
    key_ids: HashSet<Vec<u8>>,
}

/// Bit N from the right stands for serial `offset + N`.
#[derive(Clone, Debug)]
struct Bitmap {
    offset: u64,
    bits: Vec<u8>,
}

/// The list cannot be read; the text says where it stops making sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KrlError(&'static str);

type Parsed<T> = Result<T, KrlError>;

impl Krl {
    pub(crate) fn parse(data: &[u8]) -> Parsed<Self> {
        let mut input = Input(data);
        if input.take(MAGIC.len())? != MAGIC || input.u32()? != FORMAT {
            return Err(KrlError("it is no revocation list of format 1"));
        }
        // Version, date and flags, of which none is defined; a reserved string and the comment.
        input.take(24)?;
        input.string()?;
        input.string()?;
        let mut list = Self::default();
        while !input.is_empty() {
            let kind = input.u8()?;
            list.add_section(kind, Input(input.string()?))?;
        }
        Ok(list)
    }

    fn add_section(&mut self, kind: u8, mut section: Input<'_>) -> Parsed<()> {
        match kind {
            1 => self.certificates.push(Certificates::parse(section)?),
            2 => section.each_string(|key| {
                self.sha256.insert(sha256(key));
                Ok(())
            })?,
            3 => section.each_string(|hash| insert_hash(&mut self.sha1, hash, 20))?,
            5 => section.each_string(|hash| insert_hash(&mut self.sha256, hash, 32))?,
            4 => return Err(KrlError("it is signed, which is not supported")),
            255 => pass_over_extension(section)?,
            _ => return Err(KrlError("it has a section of an unknown kind")),
        }
        Ok(())
    }

    /// Whether this key is listed, in full or by a digest.
    pub(crate) fn revokes_key(&self, key: &PublicKey) -> bool {
        // A key that cannot be written down cannot be looked up.
        let Ok(blob) = key.to_bytes() else { return true };
        self.sha256.contains(&sha256(&blob)) || self.sha1.contains(&sha1(&blob))
    }

    /// Whether this certificate is listed by serial or key id; its keys are not looked at.
    pub(crate) fn revokes_certificate(&self, certificate: &Certificate) -> bool {
        let Ok(authority) = PublicKey::from(certificate.signature_key().clone()).to_bytes() else {
            return true;
        };
        let authority = sha256(&authority);
        let theirs = |it: &&Certificates| it.authority.as_ref().is_none_or(|listed| *listed == authority);
        self.certificates.iter().filter(theirs).any(|it| {
            it.key_ids.contains(certificate.key_id().as_bytes()) || it.revokes_serial(certificate.serial())
        })
    }
}

impl Certificates {
    fn parse(mut input: Input<'_>) -> Parsed<Self> {
        let authority = input.string()?;
        input.string()?;
        let mut list = Self::default();
        if !authority.is_empty() {
            PublicKey::from_bytes(authority).map_err(|_| KrlError("the key of an authority is malformed"))?;
            list.authority = Some(sha256(authority));
        }
        while !input.is_empty() {
            let kind = input.u8()?;
            list.add_section(kind, Input(input.string()?))?;
        }
        list.serials = merged(list.serials);
        Ok(list)
    }

    fn add_section(&mut self, kind: u8, mut section: Input<'_>) -> Parsed<()> {
        match kind {
            0x20 => {
                while !section.is_empty() {
                    let serial = section.u64()?;
                    self.add_range(serial, serial)?;
                }
            }
            0x21 => {
                let (first, last) = (section.u64()?, section.u64()?);
                section.end()?;
                self.add_range(first, last)?;
            }
            0x22 => {
                let offset = section.u64()?;
                let bits = section.string()?;
                section.end()?;
                self.bitmaps.push(Bitmap::new(offset, bits)?);
            }
            0x23 => section.each_string(|id| {
                self.key_ids.insert(id.to_vec());
                Ok(())
            })?,
            0x39 => pass_over_extension(section)?,
            _ => return Err(KrlError("it has certificates of an unknown kind of section")),
        }
        Ok(())
    }

    /// Serial 0 means that a certificate has none, and cannot be revoked.
    fn add_range(&mut self, first: u64, last: u64) -> Parsed<()> {
        if first == 0 || first > last {
            return Err(KrlError("a range of serials is malformed"));
        }
        self.serials.push((first, last));
        Ok(())
    }

    fn revokes_serial(&self, serial: u64) -> bool {
        if serial == 0 {
            return false;
        }
        let before = self.serials.partition_point(|(first, _)| *first <= serial);
        let ranged = before.checked_sub(1).and_then(|at| self.serials.get(at));
        ranged.is_some_and(|(_, last)| serial <= *last) || self.bitmaps.iter().any(|it| it.has(serial))
    }
}

impl Bitmap {
    /// `bits` is the content of an mpint (RFC 4251 §5) that is not negative.
    fn new(offset: u64, bits: &[u8]) -> Parsed<Self> {
        let malformed = KrlError("a bitmap of serials is malformed");
        let zeros = bits.iter().take_while(|byte| **byte == 0).count();
        let significant = bits.get(zeros..).unwrap_or_default();
        let top = significant.first().map_or(0, |byte| 8 - byte.leading_zeros() as usize);
        let count = significant.len().saturating_sub(1) * 8 + top;
        let negative = bits.first().is_some_and(|byte| byte & 0x80 != 0);
        let last = u64::try_from(count).ok().and_then(|count| offset.checked_add(count.saturating_sub(1)));
        let revokes_zero = offset == 0 && significant.last().is_some_and(|byte| byte & 1 == 1);
        if negative || count > MAX_BITMAP || last.is_none() || revokes_zero {
            return Err(malformed);
        }
        Ok(Self { offset, bits: significant.to_vec() })
    }

    fn has(&self, serial: u64) -> bool {
        let Some(Ok(bit)) = serial.checked_sub(self.offset).map(usize::try_from) else { return false };
        let byte = self.bits.iter().rev().nth(bit / 8);
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }
}

/// In order, and those that touch as one.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Extensions that are not critical may be passed over, and none is known that is.
fn pass_over_extension(mut section: Input<'_>) -> Parsed<()> {
    section.string()?;
    let critical = section.u8()? != 0;
    section.string()?;
    section.end()?;
    if critical {
        return Err(KrlError("it has a critical extension that is not supported"));
    }
    Ok(())
}

fn insert_hash(hashes: &mut HashSet<Vec<u8>>, hash: &[u8], length: usize) -> Parsed<()> {
    if hash.len() != length {
        return Err(KrlError("a digest of a key has a wrong length"));
    }
    hashes.insert(hash.to_vec());
    Ok(())
}

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

/// Only to find keys that were listed by it.
fn sha1(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data).as_ref().to_vec()
}

/// What is left to read, in the encoding of RFC 4251 §5.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(KrlError("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(KrlError("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Parsed<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Parsed<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| KrlError("it ends too early"))?)
    }

    fn each_string(&mut self, mut take: impl FnMut(&'a [u8]) -> Parsed<()>) -> Parsed<()> {
        while !self.is_empty() {
            take(self.string()?)?;
        }
        Ok(())
    }

    fn end(&self) -> Parsed<()> {
        if self.is_empty() { Ok(()) } else { Err(KrlError("a section has more than its kind holds")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], data].concat()
    }

    fn section(kind: u8, data: &[u8]) -> Vec<u8> {
        [&[kind][..], &string(data)].concat()
    }

    fn list(sections: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC, &1_u32.to_be_bytes(), &[0; 24], &string(b""), &string(b"a comment"), &sections.concat()]
            .concat()
    }

    /// Sections about the certificates of every authority.
    fn certificates(sections: &[Vec<u8>]) -> Vec<u8> {
        list(&[section(1, &[string(b""), string(b""), sections.concat()].concat())])
    }

    fn bitmap(offset: u64, bits: &[u8]) -> Vec<u8> {
        certificates(&[section(0x22, &[&offset.to_be_bytes()[..], &string(bits)].concat())])
    }

    fn range(first: u64, last: u64) -> Vec<u8> {
        section(0x21, &[first.to_be_bytes(), last.to_be_bytes()].concat())
    }

    fn revokes(data: &[u8], serial: u64) -> bool {
        Krl::parse(data).unwrap().certificates[0].revokes_serial(serial)
    }

    #[test]
    fn serials_are_revoked_in_ranges_and_lists() {
        let both =
            certificates(&[range(5, 9), range(7, 12), range(20, 20), section(0x20, &3_u64.to_be_bytes())]);
        let revoked: Vec<_> = (0..30).filter(|serial| revokes(&both, *serial)).collect();
        assert_eq!(revoked, [3, 5, 6, 7, 8, 9, 10, 11, 12, 20]);
        let all = certificates(&[range(1, u64::MAX), range(3, 4)]);
        assert!(revokes(&all, u64::MAX) && revokes(&all, 1) && !revokes(&all, 0));
    }

    #[test]
    fn a_bit_of_a_bitmap_is_a_serial() {
        let some = bitmap(1000, &[0, 0b1000_0001, 0b0000_0110]);
        let revoked: Vec<_> = (990..1100).filter(|serial| revokes(&some, *serial)).collect();
        assert_eq!(revoked, [1001, 1002, 1008, 1015]);
        assert!(revokes(&bitmap(u64::MAX - 1, &[0b10]), u64::MAX));
        assert!(!revokes(&bitmap(9, &[]), 9));
    }

    #[test]
    fn a_list_that_is_not_understood_is_not_read() {
        let extension = |critical: u8| section(255, &[string(b"x@y"), vec![critical], string(b"z")].concat());
        assert!(Krl::parse(&list(&[extension(0)])).is_ok());
        for (what, data) in [
            ("a critical extension", list(&[extension(1)])),
            ("a signature", list(&[section(4, b"")])),
            ("an unknown section", list(&[section(9, b"")])),
            ("an unknown section of certificates", certificates(&[section(0x24, b"")])),
            (
                "a critical extension of certificates",
                certificates(&[section(0x39, &[0, 0, 0, 0, 1, 0, 0, 0, 0])]),
            ),
            ("a short SHA-1", list(&[section(3, &string(&[7; 19]))])),
            ("a long SHA-256", list(&[section(5, &string(&[7; 33]))])),
            ("a key that is none", list(&[section(1, &[string(b"no key"), string(b"")].concat())])),
            ("a range backwards", certificates(&[range(9, 5)])),
            ("serial 0", certificates(&[range(0, 5)])),
            ("serial 0 in a bitmap", bitmap(0, &[1])),
            ("a negative bitmap", bitmap(1, &[0x80])),
            ("a bitmap beyond the last serial", bitmap(u64::MAX, &[0b10])),
            ("a huge bitmap", bitmap(1, &vec![1; MAX_BITMAP / 8 + 1])),
            ("more than a range", certificates(&[section(0x21, &[1; 17])])),
            ("nothing", vec![]),
            ("another format", list(&[]).iter().map(|byte| if *byte == 1 { 2 } else { *byte }).collect()),
        ] {
            assert!(Krl::parse(&data).is_err(), "{what}");
        }
    }

    #[test]
    fn a_list_that_is_cut_off_is_not_read() {
        let whole = [certificates(&[range(5, 9)]), section(3, &string(&[7; 20]))].concat();
        assert!(Krl::parse(&whole).is_ok());
        let header = list(&[]).len();
        let cut: Vec<_> = (0..whole.len()).filter(|end| Krl::parse(&whole[..*end]).is_ok()).collect();
        assert_eq!(cut, [header, certificates(&[range(5, 9)]).len()], "only where a section ends");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(kind: u8, inner: u8, data: Vec<u8>) {
            let _ = Krl::parse(&data);
            let _ = Krl::parse(&list(&[section(kind, &data)]));
            if let Ok(list) = Krl::parse(&certificates(&[section(inner, &data)])) {
                let _ = list.certificates[0].revokes_serial(7);
            }
        }

        #[test]
        fn merged_ranges_hold_the_same_serials(ranges in prop::collection::vec((1_u64..40, 0_u64..9), 0..8)) {
            let sections: Vec<_> = ranges.iter().map(|(first, more)| range(*first, first + more)).collect();
            let data = certificates(&sections);
            for serial in 1..60 {
                let wanted = ranges.iter().any(|(first, more)| (*first..=first + more).contains(&serial));
                prop_assert_eq!(revokes(&data, serial), wanted, "{}", serial);
            }
        }
    }
}
