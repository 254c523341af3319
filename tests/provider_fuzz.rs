//! Streams that nobody would send: mutated at random, from seeds. No parser panics, hangs or reads one stream in two
//! ways. KHEISH_FUZZ_INPUTS sets the number of inputs for each driver's parser (`make fuzz-stable`), KHEISH_SIM_SEED
//! repeats one seed.

mod provider_support;
#[path = "support/rng.rs"]
mod rng;

use std::sync::atomic::{AtomicUsize, Ordering};

use kheish_daemon::providers::Driver;
use provider_support::{read_stream, scripted_route, server, stream_bytes};
use rng::Rng;

/// Inputs of one generator; a seed that fails is repeated by itself.
const INPUTS_OF_A_SEED: u64 = 500;

const SCRIPT: &str = "[[turn]]\nmatch = 'one'\ntext = 'größer'\nchunk_chars = 4\nthinking = 'h'\nreasoning = 'YQ=='\n\
    tool_calls = [{name = 'f', arguments = '{\"a\":[1]}'}, {name = 'g'}]\n\
    [[turn]]\nmatch = 'two'\ntext = 'x'\nfault = {kind = 'error_event'}\n\
    [[turn]]\nmatch = 'three'\nrefusal = 'no'\n";

/// What breaks parsers: structure in the wrong place, extremes, halves of characters.
const TOKENS: [&[u8]; 28] = [
    b"\n\n",
    b"\r",
    b"\r\n",
    b"data: ",
    b"data:",
    b"event: x\n",
    b"[DONE]",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff",
    b"\xf0\x9f",
    b"\xe2\x80\xa8",
    b"{\"error\":{\"code\":500}}",
];

fn mutate(rng: &mut Rng, bases: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut Rng| bases[rng.below(bases.len() as u64) as usize].clone();
    let mut bytes = pick(rng);
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let end = (at + rng.below(40) as usize).min(bytes.len());
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let token = TOKENS[rng.below(TOKENS.len() as u64) as usize];
                drop(bytes.splice(at..at, token.iter().copied()));
            }
            3 => {
                let token = TOKENS[rng.below(TOKENS.len() as u64) as usize];
                drop(bytes.splice(at..end, token.iter().copied()));
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            5 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() as u64 + 1) as usize;
                drop(bytes.splice(to..to, copy));
            }
            6 => {
                // A value in place of another.
                if let Some(colon) = bytes[at..].iter().position(|byte| *byte == b':') {
                    let from = at + colon + 1;
                    let until = bytes[from..].iter().position(|byte| b",}\n".contains(byte)).map_or(from, |n| from + n);
                    let token = TOKENS[rng.below(TOKENS.len() as u64) as usize];
                    drop(bytes.splice(from..until, token.iter().copied()));
                }
            }
            _ => {
                let other = pick(rng);
                let from = rng.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn seed_survives(driver: Driver, seed: u64, bases: &[Vec<u8>]) {
    let mut rng = Rng::new(seed);
    for number in 0..INPUTS_OF_A_SEED {
        let bytes = mutate(&mut rng, bases);
        let clean = rng.chance(2);
        let read = |piece| {
            read_stream(driver, &bytes, piece, clean)
                .map(|(outcome, shown)| (outcome.text, outcome.tool_calls, outcome.usage, outcome.stop, shown))
        };
        let whole = read(usize::MAX);
        if number % 16 == 0 {
            let piece = 1 + rng.below(30) as usize;
            assert_eq!(read(piece), whole, "{driver:?} seed {seed} input {number} in pieces of {piece}");
        }
    }
}

fn parser_survives(driver: Driver) {
    let server = server(SCRIPT);
    let route = scripted_route(driver, &server, "");
    let bases: Vec<Vec<u8>> = ["one", "two", "three"].map(|input| stream_bytes(&route, &server, input)).to_vec();
    let inputs: u64 = std::env::var("KHEISH_FUZZ_INPUTS").map_or(100_000, |it| it.parse().expect("a number"));
    let (next, seeds) = (AtomicUsize::new(0), rng::seeds(inputs.div_ceil(INPUTS_OF_A_SEED)));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    seed_survives(driver, *seed, &bases);
                }
            });
        }
    });
}

#[test]
fn the_responses_parser_survives_mutated_streams() {
    parser_survives(Driver::Openai);
}

#[test]
fn the_chat_completions_parser_survives_mutated_streams() {
    parser_survives(Driver::Openrouter);
}

#[test]
fn the_messages_parser_survives_mutated_streams() {
    parser_survives(Driver::Anthropic);
}

#[test]
fn the_generate_content_parser_survives_mutated_streams() {
    parser_survives(Driver::Google);
}
