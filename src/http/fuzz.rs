//! Seeded fuzzing of the framing: heads, lengths and chunks together.
//! Owns: a generator of nearly valid request streams and a second, naive reading of them.
//! May touch: the parsers of head.rs and body.rs.
//! Never: runs outside of tests.

use super::body::Decoder;
use super::codes;
use super::head::{Refusal, Scanner, parse};
use super::request_id::RequestId;
use super::socket::Peer;

/// What a stream means: requests, then how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Request { method: String, target: String, body: Vec<u8> },
    Refused,
    Incomplete,
}

const BODY_BYTES_MAX: usize = 64;

/// The edge's own reading of a stream that arrives in `pieces`.
fn edge_reading<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let (mut buffer, mut events) = (Vec::new(), Vec::new());
    let (mut scanner, mut receiving) = (Scanner::default(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let step = edge_step(&mut buffer, &mut scanner, &mut receiving);
            match step {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => {
                    events.push(Event::Refused);
                    return events;
                }
            }
        }
    }
    if !buffer.is_empty() || receiving.is_some() {
        events.push(Event::Incomplete);
    }
    events
}

type Receiving = Option<(String, String, Decoder, Vec<u8>)>;

fn edge_step(buffer: &mut Vec<u8>, scanner: &mut Scanner, receiving: &mut Receiving) -> Result<Option<Event>, Refusal> {
    if receiving.is_none() {
        let Some(range) = scanner.scan(buffer)? else { return Ok(None) };
        *scanner = Scanner::default();
        let end = range.end;
        let head = parse(&buffer[range], Peer::Unix, || RequestId::parse("fuzz").unwrap())?;
        buffer.drain(..end);
        if head.content_length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
            return Err(Refusal::new(&codes::PAYLOAD_TOO_LARGE, "as the edge does before it reads"));
        }
        *receiving =
            Some((head.method_name().to_string(), head.target.clone(), Decoder::new(head.framing), Vec::new()));
    }
    let (method, target, decoder, body) = receiving.as_mut().expect("set above");
    let ends_at_once = decoder.remaining() == Some(0);
    if !ends_at_once {
        let fed = decoder.feed(buffer, body, BODY_BYTES_MAX)?;
        buffer.drain(..fed.consumed);
        if !fed.done {
            return Ok(None);
        }
    }
    let event = Event::Request { method: method.clone(), target: target.clone(), body: body.clone() };
    *receiving = None;
    Ok(Some(event))
}

/// The same rules written a second time, on the whole stream at once and without a state machine.
fn naive_reading(mut rest: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !rest.is_empty() {
        match naive_request(rest) {
            Naive::Request(event, length) => {
                events.push(event);
                rest = &rest[length..];
            }
            Naive::Refused => {
                events.push(Event::Refused);
                return events;
            }
            Naive::Incomplete => {
                events.push(Event::Incomplete);
                return events;
            }
        }
    }
    events
}

enum Naive {
    Request(Event, usize),
    Refused,
    Incomplete,
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".as_bytes().contains(&b))
}

/// Whether text lines are clean: every CR and LF in a pair, no other control character, nothing folded.
fn has_dirt(bytes: &[u8]) -> bool {
    let pairs_removed: Vec<u8> = {
        let mut clean = Vec::new();
        let mut index = 0;
        while index < bytes.len() {
            if bytes[index..].starts_with(b"\r\n") {
                clean.push(b' ');
                index += 2;
            } else {
                clean.push(bytes[index]);
                index += 1;
            }
        }
        clean
    };
    // A lone CR as the very last byte may still become a pair.
    let undecided = bytes.ends_with(b"\r");
    let checked = if undecided { &pairs_removed[..pairs_removed.len() - 1] } else { &pairs_removed[..] };
    checked.iter().any(|b| b.is_ascii_control() && *b != b'\t')
        || find(bytes, b"\r\n ").is_some()
        || find(bytes, b"\r\n\t").is_some()
}

fn naive_request(stream: &[u8]) -> Naive {
    let skipped = if stream.starts_with(b"\r\n") { 2 } else { 0 };
    let stream = &stream[skipped..];
    if stream.starts_with(b"\r\n") {
        return Naive::Refused;
    }
    let Some(head_end) = find(stream, b"\r\n\r\n") else {
        return if has_dirt(stream) { Naive::Refused } else { Naive::Incomplete };
    };
    let head = &stream[..head_end];
    if has_dirt(&stream[..head_end + 4]) {
        return Naive::Refused;
    }
    let Ok(head) = std::str::from_utf8(head) else { return Naive::Refused };
    let mut lines = head.split("\r\n");
    let request_line: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [method, target, version] = request_line[..] else { return Naive::Refused };
    let mut headers = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Naive::Refused };
        if !is_token(name) {
            return Naive::Refused;
        }
        let (name, trimmed) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
        if ["host", "content-length", "transfer-encoding"].contains(&name.as_str())
            && value.trim_matches(' ') != trimmed
        {
            return Naive::Refused;
        }
        headers.push((name, trimmed));
    }
    let all = |name: &str| headers.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect::<Vec<_>>();
    let old = version == "HTTP/1.0";
    let refused = !is_token(method)
        || method == "CONNECT"
        || method.len() > 20
        || !(old || version == "HTTP/1.1")
        || headers.len() > 64
        || !(all("host").len() == 1 || (old && all("host").is_empty()))
        || all("host").iter().any(|host| {
            host.starts_with(':') || host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._~%:[]".contains(c))
        })
        || all("expect").len() > 1
        || all("expect").iter().any(|value| !value.eq_ignore_ascii_case("100-continue"))
        || !target.is_ascii()
        || target.contains(['#', '\t'])
        || (0..target.len()).any(|at| {
            let is_hex = |at: usize| target.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
            target.as_bytes()[at] == b'%' && !(is_hex(at + 1) && is_hex(at + 2))
        })
        || !(target.starts_with('/') || (target == "*" && method == "OPTIONS"));
    if refused {
        return Naive::Refused;
    }
    let body_at = head_end + 4;
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    let (body, body_bytes) = match (&lengths[..], &codings[..]) {
        ([], []) => (Vec::new(), 0),
        ([length], []) => {
            if length.is_empty() || !length.chars().all(|c| c.is_ascii_digit()) {
                return Naive::Refused;
            }
            match length.trim_start_matches('0').parse::<usize>() {
                Ok(length) if length > BODY_BYTES_MAX => return Naive::Refused,
                Ok(length) if stream.len() < body_at + length => return Naive::Incomplete,
                Ok(length) => (stream[body_at..body_at + length].to_vec(), length),
                Err(_) if length.chars().all(|c| c == '0') => (Vec::new(), 0),
                Err(_) => return Naive::Refused,
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && !old => match naive_chunks(&stream[body_at..]) {
            Ok(chunks) => chunks,
            Err(outcome) => return outcome,
        },
        _ => return Naive::Refused,
    };
    let event = Event::Request { method: method.to_string(), target: target.to_string(), body };
    Naive::Request(event, skipped + body_at + body_bytes)
}

fn naive_chunks(stream: &[u8]) -> Result<(Vec<u8>, usize), Naive> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &stream[at..];
        let line = naive_chunk_line(rest)?;
        at += line.len() + 2;
        let digits = line.split(|b| *b == b';').next().unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        if body.len() + size > BODY_BYTES_MAX {
            return Err(Naive::Refused);
        }
        let data = &stream[at..];
        body.extend_from_slice(&data[..data.len().min(size)]);
        let end = &data[data.len().min(size)..];
        if !b"\r\n".starts_with(&end[..end.len().min(2)]) {
            return Err(Naive::Refused);
        }
        if end.len() < 2 {
            return Err(Naive::Incomplete);
        }
        at += size + 2;
    }
    // The trailer: header lines up to an empty one.
    loop {
        let rest = &stream[at..];
        match find(rest, b"\r\n") {
            Some(0) => return Ok((body, at + 2)),
            Some(end) => {
                let line = &rest[..end];
                let colon = line.iter().position(|b| *b == b':').ok_or(Naive::Refused)?;
                let dirty = line.iter().any(|b| b.is_ascii_control() && *b != b'\t');
                if dirty || !std::str::from_utf8(&line[..colon]).is_ok_and(is_token) {
                    return Err(Naive::Refused);
                }
                at += end + 2;
            }
            None => {
                let (line, ended) = match rest.split_last() {
                    Some((b'\r', line)) => (line, true),
                    _ => (rest, false),
                };
                let dirty = line.iter().any(|b| b.is_ascii_control() && *b != b'\t');
                let name = line.split(|b| *b == b':').next().unwrap();
                let bad_name = !name.is_empty() && !std::str::from_utf8(name).is_ok_and(is_token);
                let nameless = name.is_empty() && !line.is_empty();
                let colonless = ended && !line.is_empty() && !line.contains(&b':');
                let refused = dirty || bad_name || nameless || colonless;
                return Err(if refused { Naive::Refused } else { Naive::Incomplete });
            }
        }
    }
}

/// The chunk size line without its end.
fn naive_chunk_line(rest: &[u8]) -> Result<&[u8], Naive> {
    let end = find(rest, b"\r\n");
    let line = match (end, rest.split_last()) {
        (Some(end), _) => &rest[..end],
        (None, Some((b'\r', line))) => line,
        (None, _) => rest,
    };
    let digits = line.split(|b| *b == b';').next().unwrap();
    let digits_ok = digits.iter().all(u8::is_ascii_hexdigit) && digits.len() <= 8;
    let extension_ok = !line.iter().any(|b| b.is_ascii_control() && *b != b'\t');
    let whole = end.is_some() || rest.len() > line.len();
    if !digits_ok || !extension_ok || (digits.is_empty() && (whole || line.len() > digits.len())) {
        return Err(Naive::Refused);
    }
    if end.is_some() { Ok(line) } else { Err(Naive::Incomplete) }
}

/// xorshift64*: a failing case is replayed with its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

fn generate(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..=random.below(3) {
        let method = random.pick(&["GET", "POST", "HEAD", "OPTIONS", "PUT", "BREW"]);
        let target = random.pick(&["/", "/a?b", "/%00", "/v1/runs/run-1", "*"]);
        let version = if random.below(12) == 0 { "HTTP/1.0" } else { "HTTP/1.1" };
        stream.extend_from_slice(format!("{method} {target} {version}\r\nHost: h:1\r\n").as_bytes());
        for _ in 0..random.below(3) {
            let line = random.pick(&["X: y", "x:", "Connection: close", "Expect: 100-continue", "A-B:\t v \t"]);
            stream.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        if random.below(25) == 0 {
            let line = random.pick(&[
                "Content-Length: 3",
                "Content-Length: +3",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: identity",
                "Host: h",
                "Expect: x",
                "Content-Length: 00",
                "Content-Length: 3, 3",
            ]);
            stream.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        let body: Vec<u8> = (0..random.below(40)).map(|_| random.pick(&[b"a", b"\r", b"\n", b"0", b"G"])[0]).collect();
        match random.below(3) {
            0 => stream.extend_from_slice(b"\r\n"),
            1 => {
                stream.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                stream.extend_from_slice(&body);
            }
            _ => {
                stream.extend_from_slice(b"transfer-encoding: Chunked\r\n\r\n");
                for chunk in body.chunks(1 + random.below(20)) {
                    let extension = random.pick(&["", "", ";", ";a=b"]);
                    stream.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                    stream.extend_from_slice(chunk);
                    stream.extend_from_slice(b"\r\n");
                }
                stream.extend_from_slice(
                    random.pick(&["0\r\n\r\n", "000\r\nT: v\r\n\r\n", "0;x\r\nt:\r\nu: w\r\n\r\n"]).as_bytes(),
                );
            }
        }
        if random.below(8) == 0 {
            stream.extend_from_slice(b"\r\n");
        }
    }
    mutate(random, &mut stream);
    stream
}

fn mutate(random: &mut Random, stream: &mut Vec<u8>) {
    const INTERESTING: &[u8] = b"\r\n\t :;,\0\x01\x7f\x80\xff+-0159afgAZ/%#?\"";
    for _ in 0..random.below(3) {
        if stream.is_empty() {
            return;
        }
        let at = random.below(stream.len());
        let byte = INTERESTING[random.below(INTERESTING.len())];
        match random.below(5) {
            0 => stream[at] = byte,
            1 => stream.insert(at, byte),
            2 => {
                stream.remove(at);
            }
            3 => stream.truncate(at),
            _ => {
                let end = (at + 1 + random.below(20)).min(stream.len());
                let piece = stream[at..end].to_vec();
                stream.splice(at..at, piece);
            }
        }
    }
}

/// A fixed range, or as many seeds as `KHEISH_FUZZ_SEEDS` says, or the one in `KHEISH_FUZZ_SEED`.
fn seeds() -> std::ops::Range<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match variable("KHEISH_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("KHEISH_FUZZ_SEEDS").unwrap_or(20_000),
    }
}

#[test]
fn no_stream_has_two_readings_however_it_is_split_and_whoever_reads_it() {
    let (mut refused, mut served) = (0, 0);
    for seed in seeds() {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let stream = generate(&mut random);
        let whole = edge_reading(std::iter::once(stream.as_slice()));
        let text = String::from_utf8_lossy(&stream);
        assert_eq!(whole, naive_reading(&stream), "KHEISH_FUZZ_SEED={seed}: {text:?}");
        for size in [1, 1 + random.below(50)] {
            assert_eq!(whole, edge_reading(stream.chunks(size)), "KHEISH_FUZZ_SEED={seed} by {size}: {text:?}");
        }
        refused += usize::from(whole.last() == Some(&Event::Refused));
        served += whole.iter().filter(|event| matches!(event, Event::Request { .. })).count();
    }
    // The generator must reach both sides, or the test proves nothing.
    if seeds().end - seeds().start >= 1_000 {
        assert!(refused > 100 && served > 100, "{refused} refused, {served} served");
    }
}

#[test]
fn arbitrary_bytes_never_panic_the_parsers() {
    for seed in seeds() {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
        let whole = edge_reading(std::iter::once(bytes.as_slice()));
        assert_eq!(whole, edge_reading(bytes.chunks(1)), "seed {seed}");
        let mut chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        chunked.extend_from_slice(&bytes);
        assert_eq!(edge_reading(std::iter::once(chunked.as_slice())), edge_reading(chunked.chunks(3)), "seed {seed}");
    }
}
