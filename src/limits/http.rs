//! Bounds of the HTTP edge.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- http edge -------------------------------------------------------------------------------

/// Threads that run handlers which may block; four keep two cores busy while two of them wait.
pub const HTTP_WORKERS: usize = 4;
/// Requests waiting for a worker. At 4 workers and 5 ms each the last one waits about a third of a
/// second; the next is refused with 503 `server_busy` and `Retry-After`.
pub const HTTP_WORKER_QUEUE_MAX: usize = 256;
/// Body up to which a `Lane::Inline` handler runs on the reactor thread. Parsing this much JSON takes
/// well under a millisecond, during which no other connection is served.
pub const HTTP_INLINE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Request line and header lines together; more is 431. What common proxies forward at most.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of one request; more is 431. Browsers send about 20, proxies add about 10.
pub const HTTP_HEADER_LINES_MAX: usize = 64;
/// Request target (path and query); more is 414.
pub const HTTP_TARGET_BYTES_MAX: usize = 8 * 1024;
/// Method name; the longest registered one (`UPDATEREDIRECTREF`) has 17 bytes. More is 501.
pub const HTTP_METHOD_BYTES_MAX: usize = 20;
/// A caller's `X-Request-Id`; a longer one is replaced, since it is repeated on every log line.
pub const HTTP_REQUEST_ID_BYTES_MAX: usize = 64;
/// One read while a head is awaited. With a partial head before it, this bounds the bytes held for a
/// connection that pipelines to `HTTP_HEAD_BYTES_MAX` + this; the rest stays in the kernel.
pub const HTTP_READ_BYTES: usize = 16 * 1024;
/// One read while a body of known length is received; larger, since nothing beyond the body is taken.
pub const HTTP_BODY_READ_BYTES: usize = 64 * 1024;
/// Reads of one connection before the others get their turn: 1 MiB of body.
pub const HTTP_READS_PER_TURN_MAX: usize = 16;
/// Pipelined requests of one connection answered before the others get their turn.
pub const HTTP_REQUESTS_PER_TURN_MAX: usize = 32;
/// Connections accepted before established ones get their turn.
pub const HTTP_ACCEPTS_PER_TURN_MAX: usize = 64;
/// Connections that wait in the kernel to be accepted; Linux cuts it to net.core.somaxconn (4096).
pub const HTTP_LISTEN_BACKLOG: i32 = 4_096;
/// Open connections, event streams included. An idle one costs one descriptor and about 300 bytes.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;
/// Open connections of one client address (one /64 for IPv6). Not for loopback, unix sockets and trusted
/// proxies, where all clients share one address.
pub const HTTP_CONNECTIONS_PER_PEER_MAX: usize = 256;
/// Request bodies held at once, from the first byte until the answer; ten of the largest. The request
/// that would exceed it is refused with 503 `server_busy`.
pub const HTTP_BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Response bytes that clients have not taken yet, all connections together; whoever exceeds it is cut.
pub const HTTP_UNSENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest body that is copied behind its head so that both leave in one send; a longer one is sent in two.
pub const HTTP_COPIED_BODY_BYTES_MAX: usize = 64 * 1024;
/// Hexadecimal digits of a chunk size: 4 GiB, beyond every body limit.
pub const HTTP_CHUNK_SIZE_DIGITS_MAX: usize = 8;
/// Chunk extensions of one body, all chunks together. Nobody uses them; they are read and discarded.
pub const HTTP_CHUNK_EXTENSION_BYTES_MAX: usize = 1_024;
/// Trailer lines of one body. They are read and discarded.
pub const HTTP_TRAILER_BYTES_MAX: usize = 4 * 1024;
/// From the first byte of a head (or the accept of a connection) to its end; 408 after that.
pub const HTTP_HEAD_DEADLINE_MS: u64 = 10_000;
/// From the end of a head to the end of its body: 24 MiB at 0.7 Mbit/s. 408 after that.
pub const HTTP_BODY_DEADLINE_MS: u64 = 300_000;
/// Window in which a body must grow by `HTTP_BODY_PROGRESS_BYTES_MIN` or end; 408 otherwise.
pub const HTTP_BODY_PROGRESS_MS: u64 = 15_000;
/// Least growth of a body in one window: 1 KiB/s lets a modem pass and no dribbler.
pub const HTTP_BODY_PROGRESS_BYTES_MIN: usize = 15 * 1024;
/// A kept connection without a request is closed after this; longer than the 60 s of nginx upstreams, so
/// that the proxy closes first and no request is lost in between.
pub const HTTP_IDLE_DEADLINE_MS: u64 = 75_000;
/// Window in which a client must take `HTTP_WRITE_PROGRESS_BYTES_MIN` of its response or its rest; it is
/// cut otherwise.
pub const HTTP_WRITE_PROGRESS_MS: u64 = 30_000;
/// Least bytes of a response taken in one window.
pub const HTTP_WRITE_PROGRESS_BYTES_MIN: usize = 256 * 1024;
/// At a drain: time that a connection gets which was accepted and has not asked for anything yet. A client that connected
/// the moment before is answered instead of cut off; one that only keeps a connection open holds up the stop that long.
pub const HTTP_DRAIN_FRESH_MS: u64 = 1_000;
/// After a closing answer: time in which what the client still sends is read and discarded, so that the
/// kernel does not reset the connection before the answer was read.
pub const HTTP_LINGER_MS: u64 = 2_000;
/// Bytes discarded while lingering.
pub const HTTP_LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Pause of accepting after the process or the host ran out of descriptors or buffers.
pub const HTTP_ACCEPT_PAUSE_MS: u64 = 100;
/// Longest time between two looks at the deadlines; also the age of a healthy reactor's last progress.
pub const HTTP_SWEEP_MS_MAX: u64 = 250;
