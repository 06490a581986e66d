//! Records that are only added: audit events and usage; and the nodes.

use crate::bed::Bed;
use crate::rows::audit_event;
use crownest_store::{
    AuditEvent, AuditFilter, Node, PageRequest, StoreError, UsageEvent, UsageSum,
};

on_both!(
    audit_entries_are_found_by_what_they_say,
    a_batch_is_added_whole_or_not_at_all,
    usage_is_summed_by_metric_and_period,
    a_lease_belongs_to_one_boot,
);

async fn audit_entries_are_found_by_what_they_say(bed: Bed) {
    let first = AuditEvent {
        project_id: Some("prj_a".to_owned()),
        ..audit_event("a", "1", 10)
    };
    let second = AuditEvent {
        action: "sandbox.kill".to_owned(),
        actor_id: "key_2".to_owned(),
        ..audit_event("a", "2", 20)
    };
    let third = AuditEvent {
        resource_kind: "api_key".to_owned(),
        resource_id: "key_9".to_owned(),
        request_id: None,
        ..audit_event("a", "3", 30)
    };
    bed.store
        .insert_audit_events(std::slice::from_ref(&first))
        .await
        .unwrap();
    bed.store
        .insert_audit_events(&[second.clone(), third.clone()])
        .await
        .unwrap();
    bed.store
        .insert_audit_events(&[audit_event("b", "4", 40)])
        .await
        .unwrap();

    let all = AuditFilter::default();
    let cases = [
        (all, vec![&third, &second, &first]),
        (
            AuditFilter {
                project_id: Some("prj_a"),
                ..all
            },
            vec![&first],
        ),
        (
            AuditFilter {
                actor_id: Some("key_2"),
                ..all
            },
            vec![&second],
        ),
        (
            AuditFilter {
                action: Some("sandbox.create"),
                ..all
            },
            vec![&third, &first],
        ),
        (
            AuditFilter {
                resource_kind: Some("api_key"),
                ..all
            },
            vec![&third],
        ),
        (
            AuditFilter {
                resource_id: Some("sbx_1"),
                ..all
            },
            vec![&second, &first],
        ),
        (
            AuditFilter {
                resource_id: Some("sbx_1"),
                resource_kind: Some("api_key"),
                ..all
            },
            vec![],
        ),
        (
            AuditFilter {
                from: Some(10),
                to: Some(30),
                ..all
            },
            vec![&second, &first],
        ),
        (
            AuditFilter {
                from: Some(11),
                resource_id: Some("sbx_1"),
                ..all
            },
            vec![&second],
        ),
        (
            AuditFilter {
                action: Some("%"),
                ..all
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        let page = bed
            .store
            .audit_events("org_a", &filter, &PageRequest::default())
            .await
            .unwrap();
        assert_eq!(page.rows.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

async fn a_batch_is_added_whole_or_not_at_all(bed: Bed) {
    bed.store.insert_audit_events(&[]).await.unwrap();
    bed.store
        .insert_audit_events(&[audit_event("a", "1", 10)])
        .await
        .unwrap();
    let batch = [audit_event("a", "2", 20), audit_event("a", "1", 30)];
    let refused = bed.store.insert_audit_events(&batch).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    let filter = AuditFilter::default();
    let page = bed
        .store
        .audit_events("org_a", &filter, &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.rows, [audit_event("a", "1", 10)]);
}

async fn usage_is_summed_by_metric_and_period(bed: Bed) {
    let event = |id: &str, metric: &str, amount, created_at| UsageEvent {
        id: format!("use_{id}"),
        org_id: "org_a".to_owned(),
        project_id: Some("prj_a".to_owned()),
        resource_id: None,
        metric: metric.to_owned(),
        amount,
        created_at,
    };
    let events = [
        event("1", "sandbox_creates", 1, 99),
        event("2", "sandbox_creates", 1, 100),
        event("3", "file_bytes_written", 3_000_000_000_000, 150),
        event("4", "file_bytes_written", 4, 199),
        event("5", "sandbox_creates", 1, 200),
    ];
    bed.store.insert_usage_events(&events).await.unwrap();
    let foreign = UsageEvent {
        org_id: "org_b".to_owned(),
        ..event("6", "sandbox_creates", 7, 150)
    };
    bed.store
        .insert_usage_events(std::slice::from_ref(&foreign))
        .await
        .unwrap();
    let twice = bed.store.insert_usage_events(&events[..1]).await;
    assert!(
        matches!(twice, Err(StoreError::Conflict { .. })),
        "{twice:?}"
    );

    let sum = |metric: &str, amount, events| UsageSum {
        metric: metric.to_owned(),
        amount,
        events,
    };
    let sums = bed.store.usage_sums("org_a", &(100..200)).await.unwrap();
    let expected = [
        sum("file_bytes_written", 3_000_000_000_004, 2),
        sum("sandbox_creates", 1, 1),
    ];
    assert_eq!(sums, expected);
    assert_eq!(
        bed.store.usage_sums("org_a", &(300..400)).await.unwrap(),
        []
    );
    let page = bed
        .store
        .usage_events("org_a", &(100..200), &PageRequest::default())
        .await
        .unwrap();
    let ids: Vec<_> = page.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["use_4", "use_3", "use_2"]);
}

async fn a_lease_belongs_to_one_boot(bed: Bed) {
    let node = |boot: &str, lease_expires_at| Node {
        id: "node_1".to_owned(),
        boot_id: boot.to_owned(),
        address: format!("10.0.0.1:{boot}"),
        lease_expires_at,
    };
    assert!(
        !bed.store.renew_lease("node_1", "1", 50).await.unwrap(),
        "not registered"
    );
    bed.store.register_node(&node("1", 100)).await.unwrap();
    assert!(bed.store.renew_lease("node_1", "1", 150).await.unwrap());
    assert_eq!(bed.store.node("node_1").await.unwrap(), node("1", 150));
    bed.store.register_node(&node("2", 120)).await.unwrap();
    assert!(
        !bed.store.renew_lease("node_1", "1", 900).await.unwrap(),
        "the old boot is out"
    );
    assert_eq!(bed.store.nodes().await.unwrap(), [node("2", 120)]);
    let missing = bed.store.node("node_2").await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}
