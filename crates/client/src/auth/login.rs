//! Keeping credentials: `login` and `logout`.
