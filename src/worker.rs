//! The one way to start a thread.
//! Owns: naming, joining, and telling a clean stop from a panic.
//! Never: detaches a thread.

use std::thread::{Builder, JoinHandle};

/// A named thread that is joined by its owner.
pub struct Worker {
    name: String,
    handle: JoinHandle<()>,
}

/// A worker's thread ended by panicking.
#[derive(Debug)]
pub struct WorkerPanicked {
    /// The thread's name.
    pub name: String,
    /// The panic message, when it was text.
    pub message: String,
}

impl std::fmt::Display for WorkerPanicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {} panicked: {}; next: report this with the log line above it", self.name, self.message)
    }
}

impl Worker {
    /// Starts a thread named `name` (at most 15 bytes are visible in /proc).
    ///
    /// # Errors
    /// The operating system refused the thread.
    pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let name = name.into();
        let handle = Builder::new().name(name.clone()).spawn(body)?;
        Ok(Self { name, handle })
    }

    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the thread has ended, cleanly or not.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the thread.
    ///
    /// # Errors
    /// The thread panicked; the message is carried along.
    pub fn join(self) -> Result<(), WorkerPanicked> {
        let name = self.name;
        self.handle.join().map_err(|payload| WorkerPanicked { name, message: panic_message(payload.as_ref()) })
    }
}

/// The text of a panic payload, or a placeholder when it was not text.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text payload".to_string())
}
