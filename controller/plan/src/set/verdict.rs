//! What an answer of the API server means: for a pod that was not created, and for one
//! that was tried by a dry run. Only status codes and the words of the quota plugin are
//! read; where nothing fits, nothing is concluded.

use super::view::{Refusal, RefusalKind, Verdict};

impl Refusal {
    /// Why a creation failed that was answered with `code`, or with nothing.
    pub fn of(code: Option<u16>, message: &str) -> Refusal {
        let kind = match code {
            Some(400 | 422) => RefusalKind::Template,
            Some(403) => RefusalKind::Circumstances,
            _ => RefusalKind::Unavailable,
        };
        Refusal {
            message: message.to_owned(),
            kind,
        }
    }
}

impl Verdict {
    /// What a dry run says that was answered with `code`. A name that is taken is looked
    /// at last, so everything else has passed. A quota that is used up now may be free
    /// later; one that could never hold the pod is a refusal.
    pub fn of(code: u16, already_exists: bool, message: &str) -> Verdict {
        if already_exists {
            return Verdict::Passed;
        }
        let quota = message.contains("exceeded quota") && !exceeds_whole_quota(message);
        let webhook = message.contains("does not support dry run");
        match code {
            400 | 403 | 422 if !quota && !webhook => Verdict::Refused(message.to_owned()),
            _ => Verdict::Unknown(message.to_owned()),
        }
    }
}

/// Whether more is requested of a resource than the quota's whole: `exceeded quota: q,
/// requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1`
/// (`plugin/pkg/admission/resourcequota` upstream).
fn exceeds_whole_quota(message: &str) -> bool {
    let (Some(requested), Some(limited)) =
        (list(message, "requested: "), list(message, "limited: "))
    else {
        return false;
    };
    requested.iter().any(|(name, request)| {
        let limit = limited.iter().find(|(other, _)| other == name);
        limit.is_some_and(|(_, limit)| request > limit)
    })
}

/// The amounts after `title`, up to the next title.
fn list<'a>(message: &'a str, title: &str) -> Option<Vec<(&'a str, f64)>> {
    let (_, rest) = message.split_once(title)?;
    let list = rest.split_once(": ").map_or(rest, |(list, _)| list);
    let amounts = list.split(',').filter_map(|each| {
        let (name, amount) = each.trim().split_once('=')?;
        Some((name, quantity(amount)?))
    });
    Some(amounts.collect())
}

/// A quantity as a number, precise enough to compare amounts that people write.
fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let suffix = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (digits, unit) = suffix.map_or((text, 1.0), |(suffix, unit)| {
        (text.trim_end_matches(suffix), *unit)
    });
    digits.parse::<f64>().ok().map(|number| number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(requested: &str, limited: &str) -> Verdict {
        let message = format!(
            "pods \"web-1\" is forbidden: exceeded quota: small, requested: {requested}, used: requests.cpu=20m, limited: {limited}"
        );
        Verdict::of(403, false, &message)
    }

    #[test]
    fn a_request_above_the_whole_quota_is_refused() {
        for (requested, limited) in [
            ("requests.cpu=2", "requests.cpu=1"),
            ("requests.cpu=1500m", "requests.cpu=1"),
            ("pods=1,requests.memory=2Gi", "pods=5,requests.memory=1000M"),
        ] {
            let verdict = quota(requested, limited);
            assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
        }
        for (requested, limited) in [
            ("requests.cpu=1", "requests.cpu=1"),
            ("requests.cpu=900m", "requests.cpu=1"),
            ("requests.memory=1Gi", "requests.memory=1024Mi"),
            ("requests.cpu=strange", "requests.cpu=1"),
        ] {
            let verdict = quota(requested, limited);
            assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
        }
    }

    #[test]
    fn every_failed_creation_has_words() {
        let kind = |code| Refusal::of(code, "text").kind;
        assert_eq!(kind(Some(422)), RefusalKind::Template);
        assert_eq!(kind(Some(403)), RefusalKind::Circumstances);
        assert_eq!(kind(Some(500)), RefusalKind::Unavailable);
        assert_eq!(kind(None), RefusalKind::Unavailable);
    }
}
