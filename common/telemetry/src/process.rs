//! Metrics of the process itself, and the registry that starts with them.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

/// A registry with the metrics that every program has: `berth_build_info` and
/// `process_resident_memory_bytes`. Programs add their own, under a prefix.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register(
        "berth_build",
        "Version and commit of the program",
        Info::new(vec![("version", crate::VERSION), ("commit", crate::COMMIT)]),
    );
    registry.register_collector(Box::new(Process));
    registry
}

/// Reads the process's memory when it is asked for, not on a timer.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Linux only; elsewhere the metric is absent rather than wrong.
        let Some(bytes) = std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| resident_bytes(&status))
        else {
            return Ok(());
        };
        let gauge = ConstGauge::new(bytes);
        let metric = encoder.encode_descriptor(
            "process_resident_memory",
            "Memory of the process that is in RAM",
            Some(&Unit::Bytes),
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

/// `VmRSS` of `/proc/self/status`, which counts in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resident_memory() {
        for (status, bytes) in [
            ("Name:\tx\nVmRSS:\t    2048 kB\nThreads: 1", Some(2 << 20)),
            ("Name:\tx", None),
            ("VmRSS:\tmuch", None),
        ] {
            assert_eq!(resident_bytes(status), bytes, "{status:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn shows_process_metrics() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry()).expect("encodes");
        let bytes = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .expect("the metric is there");
        assert!(bytes.parse::<u64>().expect("a number") > 1 << 16, "{bytes}");
        assert!(text.contains("berth_build_info{version=\""), "{text}");
    }
}
