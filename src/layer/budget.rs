//! The buffer budget of a layer: why its memory is bounded and why its threads cannot wait for
//! each other forever.
//!
//! Memory is bounded by live buffers, not by queue length: a small file that waits to be written
//! keeps its whole chunk alive, wherever the queue ends. Every byte on its way is in one of two
//! budgets, counted from allocation to release. A thread that needs a buffer waits until one is
//! released.
//!
//! **Uncompressed bytes**: at most [`CHUNKS_PER_LAYER`] chunks. The decoder is the only thread
//! that waits for one. It gets one, because the other threads release theirs:
//!
//! * The hashing thread (`stream/digests`) waits only for the decoder, and holds no chunk while it
//!   does. It holds one chunk while it hashes.
//! * The unpacking thread (`unpack`) releases its chunk before it waits for the next one. It
//!   then holds only the chunks of the open batch of deferred writes.
//! * The writing thread (`extract/deferred`) waits only for a batch. The open batch, the batches
//!   in the queue and the batch that is being written hold [`DEFERRED_CHUNKS`] at most.
//!
//! **Compressed bytes**: at most [`COMPRESSED_BYTES`] of a download. The download
//! (`pull/bridge`) waits until there is space for the next [`COMPRESSED_BUFFER_SIZE`]. It gets
//! that, because only two threads keep compressed bytes while the decoder waits for more: the
//! decoder its last buffer, and the hashing thread at most [`HASH_BACKLOG`].
//!
//! A new consumer of chunks or of compressed bytes must state here how much it holds at most. The
//! assertions below check the sums at compile time.
//!
//! Five things are not in the budget: the tar-split metadata between its two threads (a few
//! batches of [`METADATA_BATCH_SIZE`] and one segment), the hashes of the names in it
//! (`tar_split/writer`, about 15 bytes per entry), the windows of zstd streams
//! (`stream/zstd_reader`), which share [`WINDOWS_PER_LAYER`] for each layer at a time
//! (`pull/windows`), the segments of parallel downloads, which `registry/parallel` bounds for all
//! layers together, and the last records of `extract/dir_list`. The few chunks that `pull/resume`
//! writes are also on their way to the unpacker.

/// Bytes of a chunk at most: large enough that passing it on costs nothing beside the work on it,
/// small enough to stay in a processor cache between the threads.
pub const CHUNK_SIZE: usize = 352 << 10;

/// Bytes of a buffer that a decoder needs beside those that it returns.
pub const DECODER_OVERHEAD: usize = inflate::BUFFER_OVERHEAD;

/// Bytes of the buffer of a chunk: a decoder needs space beside the bytes that it writes.
pub const BUFFER_SIZE: usize = CHUNK_SIZE + DECODER_OVERHEAD;

/// Live chunks of a layer at most: being filled, in a queue, being read, or kept for a deferred
/// write.
pub const CHUNKS_PER_LAYER: usize = 10;

/// Bytes of the largest file whose write is deferred. A larger file would keep whole chunks in
/// memory, and creating it is a smaller part of its cost.
pub const DEFERRED_FILE_SIZE: u64 = 64 << 10;

/// Files of a batch of deferred writes at most: enough that passing the batch on costs nothing
/// beside them.
pub const DEFERRED_BATCH_FILES: usize = 64;

/// Bytes of file data after which a batch of deferred writes is passed on.
pub const DEFERRED_BATCH_SIZE: usize = 512 << 10;

/// Chunks that one batch of deferred writes keeps alive at most.
pub const DEFERRED_BATCH_CHUNKS: usize = 2;

/// Batches of deferred writes in the queue at most. Together with the open batch and the batch
/// that is being written they also bound the number of open files.
pub const DEFERRED_QUEUE: usize = 1;

/// Chunks that all deferred writes of a layer keep alive at most.
pub const DEFERRED_CHUNKS: usize = (1 + DEFERRED_QUEUE + 1) * DEFERRED_BATCH_CHUNKS;

/// Compressed bytes of a download that were read and are not yet both decoded and hashed.
pub const COMPRESSED_BYTES: usize = 1152 << 10;

/// Bytes of one buffer of compressed bytes at most.
pub const COMPRESSED_BUFFER_SIZE: usize = 256 << 10;

/// Compressed bytes that wait for a chunk to be hashed with: as many as an incompressible chunk
/// is decoded from, and the rest of the last buffer.
pub const HASH_BACKLOG: usize = 640 << 10;

/// Messages to the hashing thread at most. They alone bound the compressed bytes of a blob that
/// is read from the content store, whose buffers are smaller.
pub const HASH_QUEUE: usize = 16;

/// Bytes of metadata lines after which they are passed on to be compressed.
pub const METADATA_BATCH_SIZE: usize = 128 << 10;

/// Batches of metadata lines in the queue at most.
pub const METADATA_QUEUE: usize = 2;

/// Bytes of both budgets of a layer.
pub const BYTES_PER_LAYER: usize = CHUNKS_PER_LAYER * BUFFER_SIZE + COMPRESSED_BYTES;

/// Bytes of the zstd windows of all layers together, for each layer that is unpacked at a time. With
/// default settings, that is enough for four layers of zstd's default level or for one of level 19. A
/// window that is larger than all of it is the only one.
pub const WINDOWS_PER_LAYER: usize = 1536 << 10;

/// Layers that are unpacked at a time unless the caller chooses another number.
pub const DEFAULT_LAYERS: usize = 6;

// The decoder fills a chunk, the unpacking thread reads one and the hashing thread another one
// while deferred writes hold as many as they may; at least one more can be in a queue.
const _: () = assert!(1 + 1 + 1 + DEFERRED_CHUNKS < CHUNKS_PER_LAYER);

// Most files whose writes are deferred lie in one chunk.
const _: () = assert!(DEFERRED_FILE_SIZE * 4 <= CHUNK_SIZE as u64);

// The download can always go on, whatever the decoder and the hashing thread keep.
const _: () =
    assert!(HASH_BACKLOG + COMPRESSED_BUFFER_SIZE + COMPRESSED_BUFFER_SIZE <= COMPRESSED_BYTES);

// The hashing thread has all compressed bytes of a chunk when the chunk arrives.
const _: () = assert!(HASH_BACKLOG >= CHUNK_SIZE + COMPRESSED_BUFFER_SIZE);

// The buffers of a pull with default settings leave half of 64 MiB to all else.
const _: () = assert!(DEFAULT_LAYERS * BYTES_PER_LAYER <= 32 << 20);
