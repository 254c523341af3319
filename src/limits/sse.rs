//! Bounds of event streams.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- sse -------------------------------------------------------------------------------------

/// Threads that write event streams. Two keep fan-out to 1,000 clients within a few milliseconds on two cores
/// and let one go on while the other waits for the disk.
pub const SSE_WRITERS: usize = 2;
/// Open event streams; the next one is refused with 503 `too_many_streams`. Half of `HTTP_CONNECTIONS_MAX`,
/// so that streams never starve requests.
pub const SSE_STREAMS_MAX: usize = 4_096;
/// Bytes that wait for one client. Nothing more is produced for it until they are gone, so the buffer exceeds
/// this by one frame at most. Frames at the tail are shared by all their clients.
pub const SSE_CLIENT_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A frame's data in bytes; clients of the reference system abandon a stream at 1 MiB. Larger outputs are cut
/// and say so.
pub const SSE_FRAME_DATA_BYTES_MAX: usize = 1024 * 1024 - 4 * 1024;
/// Text kept of an output that is too large for a frame; the whole one is read from the run's view. As JSON it
/// may take six times as much.
pub const SSE_OUTPUT_CUT_BYTES: usize = 64 * 1024;
/// Text kept of an error message in a frame; the whole one is read from the run's view.
pub const SSE_ERROR_CUT_BYTES: usize = 16 * 1024;
/// Journal bytes read once for all clients at the tail before sockets and replays get their turn.
pub const SSE_TAIL_SLICE_BYTES_MAX: usize = 256 * 1024;
/// Journal bytes read for one client that is behind before the others get their turn. About half of what its
/// buffer holds, since a frame is larger than its record.
pub const SSE_SLICE_BYTES_MAX: usize = 32 * 1024;
/// Single records read along a session's or run's chain before the others get their turn.
pub const SSE_SLICE_READS_MAX: usize = 64;
/// Positions remembered of a session's or run's chain (16 KiB). What lies before them is found by reading the
/// log in order, which is then the cheaper way.
pub const SSE_CHAIN_RECORDS_MAX: usize = 2_048;
/// Frames handed to the kernel in one call.
pub const SSE_WRITE_FRAMES_MAX: usize = 64;
/// Live text pieces that wait for a writer; the next one is dropped, since the durable output follows.
pub const SSE_PREVIEWS_MAX: usize = 1_024;
/// Bytes of one live text piece; a longer one is dropped. Model deltas are a few dozen bytes.
pub const SSE_PREVIEW_TEXT_BYTES_MAX: usize = 16 * 1024;
/// Silence after which a heartbeat is sent; `doctor` and common proxies wait for 12 s and more.
pub const SSE_HEARTBEAT_MS: u64 = 10_000;
/// A client that takes nothing for this long while bytes wait for it is cut off.
pub const SSE_STALL_MS: u64 = 30_000;
/// Time between two looks at whether a stream's credentials still hold: a rotated token must be without effect within
/// about a second. A look costs one `stat` a token file.
pub const SSE_CREDENTIAL_CHECK_MS: u64 = 1_000;
/// Shortest time between two looks at the clients' deadlines; bounds the work with many clients.
pub const SSE_SWEEP_MS_MIN: u64 = 20;
/// Longest time between two looks at the deadlines; also the age of a healthy writer's last progress.
pub const SSE_SWEEP_MS_MAX: u64 = 1_000;
/// Runs whose acceptance is kept at hand for rendering (under 8 KiB each): those active at once, with room.
pub const SSE_ORIGINS_CACHED_MAX: usize = 128;
const _: () = assert!(6 * SSE_OUTPUT_CUT_BYTES + 64 * 1024 < SSE_FRAME_DATA_BYTES_MAX, "a cut output fits in a frame");
