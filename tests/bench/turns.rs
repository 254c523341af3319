//! What a turn with a tool costs the daemon itself: from the last byte of a model's answer to the first byte of the next request.
//! Owns: a provider that answers at once with a call of `read_file`, and takes the time in between.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::{self, Daemon, Start};
use crate::histogram::Histogram;
use crate::providers::request_is_whole;
use crate::scenarios::Folder;

/// Turns with a tool of each measured run.
pub const TURNS: usize = 50;
/// Measured runs, each in a session of its own.
pub const RUNS: usize = 8;

/// What a turn costs.
pub struct Turns {
    /// The journal lies in memory, where a sync costs nothing.
    pub in_memory: Histogram,
    /// Whether it does: a machine without `/dev/shm` measures the disk twice.
    pub has_memory: bool,
    /// The journal lies where the bench works.
    pub on_disk: Histogram,
    /// Batches of the journal for one turn, each with one fdatasync.
    pub syncs_per_turn: f64,
}

/// Serves until told to end. Tells the time between an answer and the request after it.
fn provide(listener: &TcpListener, ends: &AtomicBool, gaps: &Sender<Duration>) -> io::Result<()> {
    let mut answered: Option<Instant> = None;
    while let Ok((mut socket, _)) = listener.accept() {
        if ends.load(Ordering::SeqCst) {
            return Ok(());
        }
        socket.set_nodelay(true)?;
        while let Some((came, body)) = request(&mut socket)? {
            let results = body.matches("function_call_output").count();
            if let Some(answered) = answered.take().filter(|_| results > 0) {
                gaps.send(came.duration_since(answered)).map_err(|_| io::Error::other("nobody measures"))?;
            }
            socket.write_all(&answer(results))?;
            answered = Some(Instant::now());
        }
    }
    Ok(())
}

/// The next request on the connection and when its first byte came; `None` at its end.
fn request(socket: &mut TcpStream) -> io::Result<Option<(Instant, String)>> {
    let (mut bytes, mut buffer, mut came) = (Vec::new(), vec![0u8; 64 * 1024], None);
    loop {
        let count = socket.read(&mut buffer)?;
        let came = *came.get_or_insert_with(Instant::now);
        bytes.extend_from_slice(&buffer[..count]);
        if count == 0 {
            return Ok(None);
        }
        if request_is_whole(&bytes) {
            return Ok(Some((came, String::from_utf8_lossy(&bytes).into_owned())));
        }
    }
}

fn answer(results: usize) -> Vec<u8> {
    let item = if results < TURNS {
        json!({"type": "function_call", "call_id": format!("c{results}"), "name": "read_file",
            "arguments": r#"{"path":"note.txt"}"#})
    } else {
        json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]})
    };
    let done = json!({"type": "response.output_item.done", "output_index": 0, "item": item});
    let usage = json!({"input_tokens": 100, "output_tokens": 10});
    let completed = json!({"type": "response.completed", "response": {"id": "r", "output": [item], "usage": usage}});
    let body = format!("data: {done}\n\ndata: {completed}\n\n");
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Batches that the journal of a state root has.
fn batches(state_root: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(state_root.join("journal"))? {
        let bytes = std::fs::read(entry?.path())?;
        count += String::from_utf8_lossy(&bytes).matches("\"batch\":").count();
    }
    Ok(count)
}

/// The gaps of all runs with a state root in `base`, and batches for each turn.
fn measure(base: &Path) -> io::Result<(Histogram, f64)> {
    let folder = Folder::new(base, "turns")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (gaps, taken) = channel();
    let ends = Arc::new(AtomicBool::new(false));
    let ended = ends.clone();
    let provider = std::thread::spawn(move || provide(&listener, &ended, &gaps));
    let state_root = folder.path().join("state");
    let provider_url = Some(format!("http://{address}/v1"));
    let daemon = Daemon::start(&Start { state_root: &state_root, hold: false, provider_url })?;
    std::fs::write(folder.path().join("workspace/note.txt"), "a short note\n")?;
    let before = batches(&state_root)?;
    let mut histogram = Histogram::new();
    for run in 0..RUNS {
        daemon::request(daemon.address, "POST", "/v1/sessions", &format!(r#"{{"session_id":"turns-{run}"}}"#))?;
        let path = format!("/v1/sessions/turns-{run}/runs");
        daemon::request(daemon.address, "POST", &path, r#"{"content":"x"}"#)?;
        for _ in 0..TURNS {
            let gap = taken.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?;
            histogram.add(gap.as_nanos() as u64);
        }
    }
    let written = batches(&state_root)? - before;
    daemon.process.stop()?;
    ends.store(true, Ordering::SeqCst);
    // Wakes the provider from its wait for a connection.
    drop(TcpStream::connect(address));
    provider.join().map_err(|_| io::Error::other("the provider panicked"))??;
    // The session, and the acceptance and the end of each run are no turns.
    let of_turns = written.saturating_sub(3 * RUNS) as f64;
    Ok((histogram, of_turns / (RUNS * TURNS) as f64))
}

/// Measures both places.
pub fn turns(base: &Path) -> io::Result<Turns> {
    let memory = Path::new("/dev/shm");
    let own = memory.join(format!("kheish-bench-{}", std::process::id()));
    let has_memory = memory.is_dir() && std::fs::create_dir(&own).is_ok();
    let measured = measure(if has_memory { &own } else { base });
    if has_memory {
        std::fs::remove_dir_all(&own)?;
    }
    let (in_memory, syncs_per_turn) = measured?;
    let (on_disk, _) = measure(base)?;
    Ok(Turns { in_memory, has_memory, on_disk, syncs_per_turn })
}
