//! Sizes as callers ask for them: at least so much, at most so much. Pure.

use berth_csi::csi::CapacityRange;
use tonic::Status;

/// Bytes of a volume for which nobody said a size, nor a source: 1 GiB.
pub(super) const DEFAULT_SIZE: u64 = 1 << 30;

/// A size that is asked for, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    /// At least so many bytes.
    pub(super) required: Option<u64>,
    /// At most so many bytes.
    pub(super) limit: Option<u64>,
}

impl Range {
    /// Reads a request's range; none, or zeroes, leave the size open.
    ///
    /// The error is INVALID_ARGUMENT for a range that contradicts itself.
    pub(super) fn read(range: Option<&CapacityRange>) -> Result<Self, Status> {
        let range = range.copied().unwrap_or_default();
        let bytes = |field: &str, value: i64| {
            u64::try_from(value)
                .map(|bytes| (bytes != 0).then_some(bytes))
                .map_err(|_| {
                    Status::invalid_argument(format!(
                        "capacity_range.{field} is {value}: a size is not negative"
                    ))
                })
        };
        let read = Self {
            required: bytes("required_bytes", range.required_bytes)?,
            limit: bytes("limit_bytes", range.limit_bytes)?,
        };
        match read {
            Self {
                required: Some(required),
                limit: Some(limit),
            } if limit < required => Err(Status::invalid_argument(format!(
                "capacity_range.limit_bytes is {limit}, less than the required_bytes {required}; raise it, or leave it out"
            ))),
            read => Ok(read),
        }
    }

    /// Whether a volume of `size` bytes is what is asked for.
    pub(super) fn allows(self, size: u64) -> bool {
        self.required.is_none_or(|required| required <= size)
            && self.limit.is_none_or(|limit| size <= limit)
    }

    /// Bytes for a new volume: those required; else its source's; else the most
    /// that is allowed; else [`DEFAULT_SIZE`].
    pub(super) fn choose(self, source: Option<u64>) -> u64 {
        self.required
            // More than the limit allows is then refused as too small a limit.
            .or(source.map(|needed| needed.min(self.limit.unwrap_or(u64::MAX))))
            .or(self.limit)
            .unwrap_or(DEFAULT_SIZE)
    }
}

/// A size as the protocol has it.
pub(super) fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(required_bytes: i64, limit_bytes: i64) -> Result<Range, tonic::Code> {
        Range::read(Some(&CapacityRange {
            required_bytes,
            limit_bytes,
        }))
        .map_err(|status| status.code())
    }

    #[test]
    fn ranges_are_read_or_refused() {
        let range = |required, limit| Ok(Range { required, limit });
        assert_eq!(Range::read(None).expect("open"), Range::default());
        assert_eq!(read(0, 0), range(None, None));
        assert_eq!(read(5, 0), range(Some(5), None));
        assert_eq!(read(0, 5), range(None, Some(5)));
        assert_eq!(read(5, 5), range(Some(5), Some(5)));
        assert_eq!(read(i64::MAX, 0), range(Some(i64::MAX as u64), None));
        for (required, limit) in [(-1, 0), (0, -1), (6, 5), (i64::MIN, 0)] {
            assert_eq!(read(required, limit), Err(tonic::Code::InvalidArgument));
        }
    }

    #[test]
    fn sizes_are_chosen_within_the_range() {
        for (required, limit, source, expected) in [
            (0, 0, None, DEFAULT_SIZE),
            (5, 9, None, 5),
            (0, 9, None, 9),
            (5, 9, Some(7), 5),
            (0, 9, Some(7), 7),
            (0, 6, Some(7), 6),
            (0, 0, Some(7), 7),
        ] {
            let range = read(required, limit).expect("valid");
            assert_eq!(range.choose(source), expected);
        }
        let range = read(5, 9).expect("valid");
        assert!(range.allows(5) && range.allows(9));
        assert!(!range.allows(4) && !range.allows(10));
        assert!(Range::default().allows(1));
        assert_eq!(bytes(u64::MAX), i64::MAX);
    }
}
