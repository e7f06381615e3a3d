//! Who uses the program.

use tokenpool::Holder;

/// `<user>@<host>`.
pub(crate) fn this_operator() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    let holder = Holder::of_this_process();
    let host = holder.as_str().rsplit_once('/').map_or("unknown", |(host, _)| host);
    format!("{user}@{host}")
}
