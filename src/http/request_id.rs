//! One id for each request, on its answer, in its error body and on its log lines.
//! Owns: the id's syntax, its generation, and which request the calling thread is working on.
//! May touch: the system's randomness, once at start; one thread-local.
//! Never: trusts a caller's id beyond its syntax; it identifies, it does not authorise.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::{SecureRandom, SystemRandom};

use crate::limits::HTTP_REQUEST_ID_BYTES_MAX;

/// A request id: 1 to 64 bytes of `[A-Za-z0-9._-]`, stored in place so that requests do not allocate it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    bytes: [u8; HTTP_REQUEST_ID_BYTES_MAX],
    length: u8,
}

impl RequestId {
    /// Takes a caller's id if it has the syntax; otherwise the edge generates one.
    pub fn parse(raw: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if raw.is_empty() || raw.len() > HTTP_REQUEST_ID_BYTES_MAX || !raw.bytes().all(legal) {
            return None;
        }
        let mut bytes = [0; HTTP_REQUEST_ID_BYTES_MAX];
        bytes[..raw.len()].copy_from_slice(raw.as_bytes());
        Some(Self { bytes, length: raw.len() as u8 })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("an id is ASCII by construction")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.as_str())
    }
}

/// Makes ids that differ between requests and between processes: a random part drawn once and a counter.
#[derive(Debug)]
pub struct Generator {
    process: [u8; 6],
    counter: AtomicU64,
}

impl Generator {
    /// Draws the random part.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn new() -> Result<Self, ring::error::Unspecified> {
        let mut process = [0; 6];
        SystemRandom::new().fill(&mut process)?;
        Ok(Self { process, counter: AtomicU64::new(1) })
    }

    /// The next id: 12 hexadecimal digits, a dash, and the counter in at least 6 more.
    pub fn next(&self) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; HTTP_REQUEST_ID_BYTES_MAX];
        for (index, byte) in self.process.iter().enumerate() {
            bytes[2 * index] = DIGITS[usize::from(byte >> 4)];
            bytes[2 * index + 1] = DIGITS[usize::from(byte & 15)];
        }
        bytes[12] = b'-';
        let digits = (16 - counter.leading_zeros() / 4).max(6) as usize;
        for index in 0..digits {
            let shift = 4 * (digits - 1 - index);
            bytes[13 + index] = DIGITS[(counter >> shift) as usize & 15];
        }
        RequestId { bytes, length: 13 + digits as u8 }
    }
}

thread_local! {
    static CURRENT: Cell<Option<RequestId>> = const { Cell::new(None) };
}

/// The request that the calling thread is working on; the logger puts it on every line.
pub fn current() -> Option<RequestId> {
    // A thread that is being torn down works on no request.
    CURRENT.try_with(Cell::get).ok().flatten()
}

/// Marks the calling thread as working on `id` until the returned value is dropped.
pub fn enter(id: RequestId) -> Scope {
    Scope { outer: CURRENT.replace(Some(id)) }
}

/// Restores what the thread was working on before.
#[derive(Debug)]
#[must_use = "the scope ends when this is dropped"]
pub struct Scope {
    outer: Option<RequestId>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_ids_are_taken_from_a_caller() {
        for raw in ["a", "A-z_0.9", &"x".repeat(64)] {
            assert_eq!(RequestId::parse(raw).expect("legal id").as_str(), raw);
        }
        for raw in ["", " ", "a b", "a\n", "ä", "a\"b", &"x".repeat(65)] {
            assert_eq!(RequestId::parse(raw), None, "{raw:?} was accepted");
        }
    }

    #[test]
    fn generated_ids_never_repeat_and_have_the_callers_syntax() {
        let generator = Generator::new().unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let id = generator.next();
            assert_eq!(RequestId::parse(id.as_str()), Some(id));
            assert!(seen.insert(id), "{id} repeats");
        }
        generator.counter.store(u64::MAX, Ordering::Relaxed);
        assert!(generator.next().as_str().ends_with("-ffffffffffffffff"));
    }

    #[test]
    fn scopes_nest() {
        let (outer, inner) = (RequestId::parse("outer").unwrap(), RequestId::parse("inner").unwrap());
        let _outer = enter(outer);
        {
            let _inner = enter(inner);
            assert_eq!(current(), Some(inner));
        }
        assert_eq!(current(), Some(outer));
    }
}
