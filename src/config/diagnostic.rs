//! Place + problem + hint. Collects; renders with the offending line.

/// Byte range in the file; `0..0` is the file as a whole.
pub type Place = std::ops::Range<usize>;
