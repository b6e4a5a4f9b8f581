//! One module of tests per kind of disk, for the targets that run the cases.

macro_rules! on {
    ($name:ident, $fstype:literal, $options:literal, $backend:expr, $($part:ident::$case:ident),+ $(,)?) => {
        mod $name {
            use super::*;

            const KIND: Kind = Kind {
                fstype: $fstype,
                options: $options,
                backend: $backend,
            };

            $(
                #[test]
                fn $case() {
                    $part::$case(KIND);
                }
            )+
        }
    };
}
