//! The cases every store passes. A case that is not in the list below is reported as unused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokenpool::matchable::{
    Attributes, AttributesOf, Expected, Filter, Kind, KindName, MAX_VALUE_LENGTH, PageStart,
    PluginOverride, PluginOverrides, Write, Written,
};
use tokenpool::{Code, Error};

use super::{Fixture, Overlay, WorkflowPriority, at, holder, overlay, priority, set};

every_store! { std::future::ready =>
    a_deletion_is_a_version_and_can_be_undone,
    a_listing_is_in_order_in_pages_and_filtered,
    a_record_tells_version_time_and_author,
    a_repeated_write_is_done_once,
    a_value_that_is_too_long_is_refused,
    a_write_that_expects_another_version_changes_nothing,
    an_unknown_kind_is_stored_as_it_is,
    attributes_that_break_a_rule_are_refused_and_nothing_is_stored,
    deleting_hits_exactly_its_path,
    exactly_a_path_is_read_without_its_fallbacks,
    kinds_are_kept_apart_and_listed,
    old_versions_are_kept_so_many_and_restored,
    resolving_shows_every_level_and_where_each_field_comes_from,
    sixteen_mergers_lose_no_update,
    the_answer_is_not_found_with_flytes_words,
    updates_of_a_kind_that_merges_are_merged_unless_replaced,
    versions_go_on_after_a_deletion,
    what_a_path_may_hold_is_found_under_it_alone,
}

async fn a_record_tells_version_time_and_author(f: Fixture) {
    let before = SystemTime::now() - Duration::from_secs(60);
    let all = f.written_by::<WorkflowPriority>("ann");
    assert_eq!(set(&all, "p:d", 1).await, 1);
    let first = all.get_exact(&at("p:d")).await.unwrap();
    assert_eq!((first.value, first.version, &*first.by), (priority(1), 1, "ann"));
    assert!(first.at > before && first.at < SystemTime::now() + Duration::from_secs(60));
    let changed = f.written_by("bob").update(&at("p:d"), priority(2), Expected::Any).await.unwrap();
    assert_eq!((changed.version, changed.value), (2, priority(2)));
    let second = all.get_exact(&at("p:d")).await.unwrap();
    assert_eq!((second.version, &*second.by), (2, "bob"));
    assert!(second.at >= first.at);
}

async fn the_answer_is_not_found_with_flytes_words(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    let path = at("admintests:development:wf:a%3Ab");
    for error in [
        all.get_resource(&path).await.unwrap_err(),
        all.get_exact(&path).await.unwrap_err(),
        all.resolve(&path).await.unwrap_err(),
        all.history(&path).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(
            error.to_string(),
            "Resource [{Project:admintests Domain:development Workflow:wf LaunchPlan:a:b \
             ResourceType:WORKFLOW_PRIORITY}] not found"
        );
    }
}

async fn exactly_a_path_is_read_without_its_fallbacks(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    set(&all, "p", 1).await;
    assert_eq!(all.get_resource(&at("p:d")).await.unwrap().value, priority(1));
    assert!(matches!(all.get_exact(&at("p:d")).await, Err(Error::NotFound { .. })));
}

async fn deleting_hits_exactly_its_path(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    let paths = ["p", "p:d", "p:d:w", "p:d:w:l", ":d"];
    for path in paths {
        set(&all, path, 1).await;
    }
    assert!(all.delete(&at("p:d"), Expected::Any).await.unwrap());
    assert!(!all.delete(&at("p:d"), Expected::Any).await.unwrap());
    assert!(!all.delete(&at("other"), Expected::Any).await.unwrap());
    let left = all.list(&Filter::ALL, None, 10).await.unwrap().found;
    let left: Vec<_> = left.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(left, [":d", "p", "p:d:w", "p:d:w:l"]);
}

async fn a_write_that_expects_another_version_changes_nothing(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    let path = at("p:d");
    let refused = |result: Result<_, Error>, text: &str| {
        let error: Error = result.map(drop).unwrap_err();
        assert_eq!(error.code(), Code::Aborted);
        assert_eq!(error.to_string(), format!("WORKFLOW_PRIORITY of p:d {text}"));
    };
    let update = |value, expected| all.update(&path, priority(value), expected);
    refused(update(1, Expected::Version(1)).await.map(drop), "is not set, not 1");
    update(1, Expected::Absent).await.unwrap();
    f.written_by("other").update(&path, priority(2), Expected::Version(1)).await.unwrap();
    refused(update(3, Expected::Version(1)).await.map(drop), "has version 2, not 1");
    refused(
        update(3, Expected::Absent).await.map(drop),
        "has version 2, and was expected not to be set",
    );
    refused(all.delete(&path, Expected::Version(1)).await.map(drop), "has version 2, not 1");
    let found = all.get_exact(&path).await.unwrap();
    assert_eq!((found.value, found.version), (priority(2), 2));
    assert!(all.delete(&path, Expected::Version(2)).await.unwrap());
    refused(all.delete(&path, Expected::Version(7)).await.map(drop), "is not set, not 7");
}

async fn a_repeated_write_is_done_once(f: Fixture) {
    let (kind, path, by) = (KindName::new("K").unwrap(), at("p"), holder("ann"));
    let write = async |value: Option<&'static str>, expected| {
        let mut write = Write::new(value, &by);
        write.expected = expected;
        f.store.write(&kind, &path, write).await.unwrap()
    };
    let done = |written: Written| match written {
        Written::Done { version, before } => {
            (version, before.map(|stored| stored.unwrap().value.unwrap()))
        }
        other => panic!("{other:?}"),
    };
    for _ in 0..2 {
        assert_eq!(done(write(Some("1"), Expected::Absent).await), (Some(1), None));
    }
    for _ in 0..2 {
        let before = Some("1".to_owned());
        assert_eq!(done(write(Some("2"), Expected::Version(1)).await), (Some(2), before));
    }
    for _ in 0..2 {
        let before = Some("2".to_owned());
        assert_eq!(done(write(None, Expected::Version(2)).await), (Some(3), before));
    }
    for _ in 0..2 {
        assert_eq!(done(write(Some("1"), Expected::Absent).await), (Some(4), None));
    }
    // Nor is what is there already, in the same name.
    assert_eq!(done(write(Some("1"), Expected::Any).await), (Some(4), Some("1".to_owned())));
    assert_eq!(done(write(Some("1"), Expected::Version(4)).await).0, Some(4));
    // Others, and other values, are somebody else's writes.
    assert_eq!(write(Some("2"), Expected::Absent).await, Written::Stale { found: Some(4) });
    let other = holder("bob");
    let mut theirs = Write::new(Some("1"), &other);
    theirs.expected = Expected::Absent;
    let written = f.store.write(&kind, &path, theirs).await.unwrap();
    assert_eq!(written, Written::Stale { found: Some(4) });
}

async fn versions_go_on_after_a_deletion(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    assert_eq!(set(&all, "p", 1).await, 1);
    assert!(all.delete(&at("p"), Expected::Any).await.unwrap());
    assert_eq!(set(&all, "p", 1).await, 3);
}

async fn a_deletion_is_a_version_and_can_be_undone(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    set(&all, "p", 1).await;
    f.written_by::<WorkflowPriority>("bob").delete(&at("p"), Expected::Any).await.unwrap();
    let versions = all.history(&at("p")).await.unwrap();
    let versions: Vec<_> = versions.into_iter().map(|v| (v.version, v.by, v.value)).collect();
    assert_eq!(
        versions,
        [(2, "bob".to_owned(), None), (1, "test".to_owned(), Some(Ok(priority(1))))]
    );
    let error = all.restore(&at("p"), 2, Expected::Any).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(all.restore(&at("p"), 1, Expected::Absent).await.unwrap().version, 3);
    assert_eq!(all.get_exact(&at("p")).await.unwrap().value, priority(1));
}

async fn old_versions_are_kept_so_many_and_restored(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    for value in 1..=15 {
        set(&all, "p", value).await;
        // Others of the same kind have histories of their own.
        set(&all, "p:d", value).await;
    }
    let versions = all.history(&at("p")).await.unwrap();
    let kept: Vec<_> = versions.iter().map(|v| (v.version, v.value.clone())).collect();
    let expected: Vec<_> =
        (6..=15).rev().map(|v| (v, Some(Ok(priority(i64::try_from(v).unwrap()))))).collect();
    assert_eq!(kept, expected);
    let restored = all.restore(&at("p"), 6, Expected::Version(15)).await.unwrap();
    assert_eq!((restored.version, restored.value), (16, priority(6)));
    for gone in [5, 6, 17] {
        let error = all.restore(&at("p"), gone, Expected::Any).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "invalid version \"{gone}\": must be a kept version of WORKFLOW_PRIORITY at p that is no deletion"
            )
        );
    }
    let error = all.restore(&at("p"), 7, Expected::Version(15)).await.unwrap_err();
    assert!(matches!(error, Error::Stale { found: Some(16), .. }), "{error}");
}

async fn attributes_that_break_a_rule_are_refused_and_nothing_is_stored(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    let error = all.update(&at("p"), priority(-1), Expected::Any).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let text = "invalid WORKFLOW_PRIORITY: priority \"-1\": must not be negative";
    assert_eq!(error.to_string(), text);
    let merging = f.of::<Overlay>();
    merging.update(&at("p"), overlay(&[("a", "1")]), Expected::Any).await.unwrap();
    let error = merging.update(&at("p"), overlay(&[("", "1")]), Expected::Any).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid OVERLAY: must not have an empty key");
    assert!(matches!(all.history(&at("p")).await, Err(Error::NotFound { .. })));
    assert_eq!(merging.get_exact(&at("p")).await.unwrap().version, 1);
}

async fn a_value_that_is_too_long_is_refused(f: Fixture) {
    let all = f.of::<Overlay>();
    // {"a":"..."}
    let longest = overlay(&[("a", &"x".repeat(MAX_VALUE_LENGTH - 8))]);
    all.replace(&at("p"), longest.clone(), Expected::Any).await.unwrap();
    let longer = overlay(&[("a", &"x".repeat(MAX_VALUE_LENGTH - 7))]);
    let error = all.replace(&at("p"), longer, Expected::Any).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid OVERLAY: p \"1048577 bytes\": must not be longer than 1048576 bytes in JSON"
    );
    // Nor by merging.
    let error = all.update(&at("p"), overlay(&[("b", "")]), Expected::Any).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(all.get_exact(&at("p")).await.unwrap().value, longest);
}

async fn updates_of_a_kind_that_merges_are_merged_unless_replaced(f: Fixture) {
    let all = f.of::<Overlay>();
    let path = at("p");
    all.update(&path, overlay(&[("hive", "b"), ("python", "c")]), Expected::Any).await.unwrap();
    let merged =
        all.update(&path, overlay(&[("python", "a")]), Expected::Version(1)).await.unwrap();
    let both = overlay(&[("hive", "b"), ("python", "a")]);
    assert_eq!((merged.version, &merged.value), (2, &both));
    assert_eq!(all.get_exact(&path).await.unwrap().value, both);
    let stale = all.update(&path, overlay(&[("x", "y")]), Expected::Version(1)).await;
    assert!(matches!(stale, Err(Error::Stale { found: Some(2), .. })), "{stale:?}");
    let less = overlay(&[("python", "a")]);
    all.replace(&path, less.clone(), Expected::Any).await.unwrap();
    assert_eq!(all.get_exact(&path).await.unwrap().value, less);
}

async fn sixteen_mergers_lose_no_update(f: Fixture) {
    let mergers = (0..16).map(|merger: u32| {
        let all = f.of::<PluginOverrides>();
        tokio::spawn(async move {
            for round in 0..20 {
                let one = PluginOverride {
                    task_type: format!("{merger}-{round}"),
                    plugin_id: vec!["plugin".to_owned()],
                    ..PluginOverride::default()
                };
                let one = PluginOverrides { overrides: vec![one] };
                all.update(&at("p:d"), one, Expected::Any).await.unwrap();
            }
        })
    });
    for merger in mergers.collect::<Vec<_>>() {
        merger.await.unwrap();
    }
    let found = f.of::<PluginOverrides>().get_exact(&at("p:d")).await.unwrap();
    let types: BTreeSet<_> = found.value.overrides.iter().map(|one| &one.task_type).collect();
    assert_eq!((types.len(), found.version), (320, 320));
}

async fn kinds_are_kept_apart_and_listed(f: Fixture) {
    assert_eq!(f.store.kinds().await.unwrap(), []);
    set(&f.of(), "p", 1).await;
    f.of::<Overlay>().update(&at("p"), overlay(&[]), Expected::Any).await.unwrap();
    let names: Vec<_> = f.store.kinds().await.unwrap();
    let names: Vec<_> = names.iter().map(KindName::as_str).collect();
    assert_eq!(names, ["OVERLAY", "WORKFLOW_PRIORITY"]);
    f.of::<Overlay>().delete(&at("p"), Expected::Any).await.unwrap();
    assert_eq!(f.of::<WorkflowPriority>().get_exact(&at("p")).await.unwrap().value, priority(1));
}

async fn an_unknown_kind_is_stored_as_it_is(f: Fixture) {
    let known = f.of::<WorkflowPriority>();
    set(&known, "p", 4).await;
    let all = Attributes::new(Arc::clone(&f.store), holder("ann"));
    let raw = all.of_kind(Kind::unchecked(KindName::new("WORKFLOW_PRIORITY").unwrap()));
    let found = raw.get_resource(&at("p:d")).await.unwrap();
    assert_eq!(found.value, serde_json::json!({"priority": 4}));
    // What it does not know, it does not check; whoever knows it does.
    raw.update(&at("p"), serde_json::json!({"priority": "high"}), Expected::Any).await.unwrap();
    let error = known.get_resource(&at("p:d")).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert_eq!(
        error.to_string(),
        "WORKFLOW_PRIORITY of p cannot be read: priority: invalid type: string \"high\", expected i64 at line 1 column 18"
    );
    let erased = all.of_kind(Kind::erased::<WorkflowPriority>());
    let wrong = erased.update(&at("p"), serde_json::json!({"priority": -1}), Expected::Any).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    let wrong = erased.update(&at("p"), serde_json::json!({"rank": 1}), Expected::Any).await;
    assert_eq!(
        wrong.unwrap_err().to_string(),
        "invalid WORKFLOW_PRIORITY: rank: unknown field `rank`, expected `priority`"
    );
    erased.update(&at("p"), serde_json::json!({"priority": 5}), Expected::Any).await.unwrap();
    assert_eq!(known.get_resource(&at("p")).await.unwrap().value, priority(5));
}

async fn what_a_path_may_hold_is_found_under_it_alone(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    let awkward = [
        "p:d:a%3Ab",
        "p:d:a:b",
        "p:d:a",
        "p:d:1 p",
        "p:d: 1 p",
        "p:d:é %25",
        "1:d",
        "p-x",
        "p.x:d",
        "*:d",
    ];
    for (value, path) in (0..).zip(awkward) {
        set(&all, path, value + 1).await;
        set(&all, path, value).await;
    }
    for (value, path) in (0..).zip(awkward) {
        let found = all.get_exact(&at(path)).await.unwrap();
        assert_eq!((found.value, found.version), (priority(value), 2), "{path}");
        assert_eq!(all.history(&at(path)).await.unwrap().len(), 2, "{path}");
    }
}

async fn pages(
    all: &AttributesOf<WorkflowPriority>,
    filter: &Filter,
    count: usize,
) -> (Vec<String>, usize) {
    let (mut texts, mut next, mut pages) = (Vec::new(), None::<PageStart>, 0);
    loop {
        let page = all.list(filter, next.as_ref(), count).await.unwrap();
        assert!(page.found.len() <= count + 1 && page.unreadable.is_empty());
        texts.extend(page.found.into_iter().map(|found| found.path.to_string()));
        pages += 1;
        next = page.next;
        if next.is_none() {
            return (texts, pages);
        }
    }
}

async fn a_listing_is_in_order_in_pages_and_filtered(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    assert_eq!(pages(&all, &Filter::ALL, 3).await, (Vec::new(), 1));
    let texts = [
        ":d", ":e", "p", "p-x", "p-x:d", "p.x", "p:d", "p:d:w", "p:d:w:l", "p:dd", "p:dd:w",
        "p:e:w", "p;x:d", "pp", "q:d", "q:d:w",
    ];
    for path in texts {
        set(&all, path, 1).await;
    }
    set(&all, "p:gone", 1).await;
    all.delete(&at("p:gone"), Expected::Any).await.unwrap();
    let mut ordered = texts.to_vec();
    ordered.sort_unstable();
    let filter = |project: Option<&str>, domain: Option<&str>| {
        let filter = project.map_or(Ok(Filter::ALL), |name| Filter::ALL.project(name)).unwrap();
        domain.map_or(Ok(filter.clone()), |name| filter.clone().domain(name)).unwrap()
    };
    for count in [1, 2, 3, 16, 1000] {
        let listed = async |filter| pages(&all, &filter, count).await.0;
        assert_eq!(listed(Filter::ALL).await, ordered);
        let of_p = ["p", "p:d", "p:d:w", "p:d:w:l", "p:dd", "p:dd:w", "p:e:w"];
        assert_eq!(listed(filter(Some("p"), None)).await, of_p);
        assert_eq!(listed(filter(Some("p"), Some("d"))).await, ["p:d", "p:d:w", "p:d:w:l"]);
        assert_eq!(listed(filter(Some("p"), Some("e"))).await, ["p:e:w"]);
        let of_d = [":d", "p-x:d", "p:d", "p:d:w", "p:d:w:l", "p;x:d", "q:d", "q:d:w"];
        assert_eq!(listed(filter(None, Some("d"))).await, of_d);
        assert!(listed(filter(Some("x"), None)).await.is_empty());
    }
    assert!(pages(&all, &Filter::ALL, 3).await.1 >= 5);
}

async fn resolving_shows_every_level_and_where_each_field_comes_from(f: Fixture) {
    let all = f.of::<Overlay>();
    for (path, pairs) in [
        (":d", [("a", "0"), ("e", "0")]),
        ("p", [("a", "1"), ("b", "1")]),
        ("p:d", [("b", "2"), ("c", "2")]),
        ("p:d:w:l", [("c", "4"), ("d", "4")]),
    ] {
        all.update(&at(path), overlay(&pairs), Expected::Any).await.unwrap();
    }
    let resolved = all.resolve(&at("p:d:w:l")).await.unwrap();
    let levels: Vec<_> = resolved.levels.iter().map(|level| level.path.as_str()).collect();
    assert_eq!(levels, ["p:d:w:l", "p:d", "p", ":d"]);
    let merged = overlay(&[("a", "1"), ("b", "2"), ("c", "4"), ("d", "4"), ("e", "0")]);
    assert_eq!(resolved.merged, merged);
    let sources: Vec<_> =
        resolved.sources.iter().map(|(field, path)| (field.as_str(), path.as_str())).collect();
    let expected = [("/a", "p"), ("/b", "p:d"), ("/c", "p:d:w:l"), ("/d", "p:d:w:l"), ("/e", ":d")];
    assert_eq!(sources, expected);

    // A kind that does not merge has what is most specific.
    let all = f.of::<WorkflowPriority>();
    set(&all, "p", 1).await;
    set(&all, "p:d", 2).await;
    let resolved = all.resolve(&at("p:d:w")).await.unwrap();
    assert_eq!((resolved.levels.len(), &resolved.merged), (2, &priority(2)));
    assert_eq!(
        resolved.sources.clone().into_iter().collect::<Vec<_>>(),
        [("/priority".to_owned(), at("p:d"))]
    );
}
