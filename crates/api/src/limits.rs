//! Limits that a client can run into. The unit is the last word of every name.

/// Source code of one run.
pub const CODE_SOURCE_BYTES_MAX: usize = 256 * 1024;
/// Decoded bytes of one direct file read or write.
pub const FILE_DIRECT_BYTES_MAX: usize = 256 * 1024;
/// Longest path, in bytes, as Linux has it.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest shell command.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;

/// Any JSON body. The largest legal one is a direct write: base64 of 256 KiB, or 256 KiB of text
/// in which every byte is escaped (`\u0000`).
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Time to live of a new sandbox when none is asked for, and the longest one.
pub const SANDBOX_TTL_DEFAULT_MS: u64 = 3_600_000;
pub const SANDBOX_TTL_MAX_MS: u64 = 3_600_000;
/// Longest time to live that an extension may set, from now.
pub const SANDBOX_EXTEND_MAX_MS: u64 = 24 * 3_600_000;
/// Longest life of a sandbox, from its creation.
pub const SANDBOX_SESSION_MAX_MS: u64 = 24 * 3_600_000;

/// Run of code: timeout when none is asked for, and the longest one.
pub const RUN_TIMEOUT_DEFAULT_MS: u64 = 60_000;
pub const RUN_TIMEOUT_MAX_MS: u64 = 600_000;
/// Detached run: the same two.
pub const DETACHED_TIMEOUT_DEFAULT_MS: u64 = 3_600_000;
pub const DETACHED_TIMEOUT_MAX_MS: u64 = 24 * 3_600_000;
/// Question about a context: the same two.
pub const QUERY_TIMEOUT_DEFAULT_MS: u64 = 5_000;
pub const QUERY_TIMEOUT_MAX_MS: u64 = 30_000;
/// Completions in one answer.
pub const COMPLETIONS_MAX: usize = 200;
/// Variables in one answer when nothing is asked for, and the most.
pub const VARIABLES_DEFAULT: u32 = 200;
pub const VARIABLES_MAX: u32 = 1_000;
/// One representation in the answer of an inspection.
pub const INSPECTION_BYTES_MAX: usize = 256 * 1024;
/// Longest line that answers code which asks for one.
pub const INPUT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Creation of a context: the same two.
pub const CONTEXT_TIMEOUT_DEFAULT_MS: u64 = 30_000;
pub const CONTEXT_TIMEOUT_MAX_MS: u64 = 600_000;
/// Command that is waited for: the same two.
pub const COMMAND_TIMEOUT_DEFAULT_MS: u64 = 60_000;
pub const COMMAND_TIMEOUT_MAX_MS: u64 = 600_000;
/// Longest timeout of a background command; it has none by default.
pub const BACKGROUND_TIMEOUT_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Output of one stream in the record of a command that has ended.
pub const RECORD_OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Files that one command may collect.
pub const COLLECT_ITEMS_MAX: usize = 100;
/// Pieces on one page of a command's log.
pub const LOG_CHUNKS_DEFAULT: u32 = 100;
pub const LOG_CHUNKS_MAX: u32 = 500;
/// Output on one page of a command's log; a page may be shorter than its `limit`.
pub const LOG_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Output of one stream kept in the collected result of a run or command. A stream of events
/// delivers everything.
pub const RUN_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One piece of collected output: consumers see few large pieces.
pub const RUN_OUTPUT_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// What an output budget may allow for one stream.
pub const OUTPUT_BUDGET_BYTES_MIN: usize = 256;
pub const OUTPUT_BUDGET_BYTES_MAX: usize = RUN_OUTPUT_BYTES_MAX;
/// Notices kept for one run.
pub const RUN_NOTICES_MAX: usize = 64;
/// Tables of one run that are exported whole.
pub const RUN_EXPORTS_MAX: usize = 16;
/// Largest such file.
pub const TABLE_EXPORT_BYTES_MAX: u64 = 1 << 30;
/// Rich outputs kept for one run.
pub const RUN_OUTPUTS_MAX: usize = 256;
/// Rich output of one run, all together.
pub const RUN_OUTPUTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// An inline text, markdown or LaTeX output; longer ones are cut and marked.
pub const INLINE_TEXT_BYTES_MAX: usize = 256 * 1024;
/// An inline json, data or chart output; larger ones are rejected, since half a document is none.
pub const INLINE_JSON_BYTES_MAX: usize = 1024 * 1024;
/// An inline png, jpeg, svg or html output (`richOutputs: "inline"`), as it is in the answer.
pub const INLINE_RICH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Environment of a sandbox or command: entries, longest name, all names and values together.
pub const ENV_KEYS_MAX: usize = 256;
pub const ENV_KEY_BYTES_MAX: usize = 256;
pub const ENV_BYTES_MAX: usize = 128 * 1024;
/// Names that start so belong to the service.
pub const ENV_RESERVED_PREFIX: &str = "CROWNEST";

/// Labels of a sandbox.
pub const METADATA_KEYS_MAX: usize = 16;
pub const METADATA_KEY_CHARS_MAX: usize = 64;
pub const METADATA_VALUE_CHARS_MAX: usize = 512;
pub const METADATA_BYTES_MAX: usize = 4096;

/// Items on one page of a list.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;
pub const PAGE_ITEMS_MAX: u32 = 500;
/// Longest cursor.
pub const CURSOR_BYTES_MAX: usize = 256;

/// `Idempotency-Key`, and how long its outcome is kept.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
pub const IDEMPOTENCY_KEEP_MS: u64 = 24 * 3_600_000;

/// Name of a project or key.
pub const NAME_CHARS_MAX: usize = 128;
