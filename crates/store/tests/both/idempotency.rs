//! Idempotent replays.

use crate::bed::Bed;
use crate::rows::owner;
use crownest_store::{
    Begun, IDEMPOTENT_BODY_BYTES_MAX, IDEMPOTENT_REPLAY_SECONDS, Node, RequestHash, ScopeKey,
    StoreError, StoredResponse,
};
use std::sync::Arc;

on_both!(
    a_finished_request_is_replayed,
    another_request_under_the_key_is_a_mismatch,
    of_fifty_at_once_one_is_new,
    a_dead_boot_of_this_node_is_an_interruption,
    another_nodes_boot_and_lease_speak_for_it,
    of_many_takers_one_takes_over,
    abandoning_frees_the_key,
    a_day_later_the_key_is_free,
    only_old_rows_are_purged,
    a_huge_answer_is_refused,
);

const DAY: i64 = IDEMPOTENT_REPLAY_SECONDS * 1_000_000;

fn key(name: &str) -> ScopeKey {
    ScopeKey::of("org_a", "key_1", "POST", "/v1/sandboxes", name)
}

fn request(body: &str) -> RequestHash {
    RequestHash::of(&[body.as_bytes()])
}

fn answer() -> StoredResponse {
    StoredResponse {
        status: 201,
        content_type: "application/json".to_owned(),
        body: b"{\"a\":\"\\u0000\"}\0\xff".to_vec(),
    }
}

async fn a_finished_request_is_replayed(bed: Bed) {
    let (store, me) = (&bed.store, owner("n", "1"));
    let begin = async || {
        store
            .begin_idempotent(&key("k"), &request("r"), &me, 5)
            .await
            .unwrap()
    };
    assert_eq!(begin().await, Begun::New);
    assert_eq!(begin().await, Begun::InFlight);
    assert!(
        store
            .finish_idempotent(&key("k"), &me, &answer())
            .await
            .unwrap()
    );
    assert_eq!(begin().await, Begun::Replay(answer()));
    // What is finished is neither finished again nor abandoned.
    assert!(
        !store
            .finish_idempotent(&key("k"), &me, &answer())
            .await
            .unwrap()
    );
    assert!(!store.abandon_idempotent(&key("k"), &me).await.unwrap());
    // Another server, a later boot, gets the same answer.
    let later = bed.another().await;
    let begun = later
        .begin_idempotent(&key("k"), &request("r"), &owner("n", "2"), 6)
        .await;
    assert_eq!(begun.unwrap(), Begun::Replay(answer()));
    // An empty answer is an answer.
    let empty = StoredResponse {
        status: 204,
        content_type: String::new(),
        body: vec![],
    };
    store
        .begin_idempotent(&key("e"), &request("r"), &me, 5)
        .await
        .unwrap();
    assert!(
        store
            .finish_idempotent(&key("e"), &me, &empty)
            .await
            .unwrap()
    );
    let begun = store
        .begin_idempotent(&key("e"), &request("r"), &me, 5)
        .await
        .unwrap();
    assert_eq!(begun, Begun::Replay(empty));
}

async fn another_request_under_the_key_is_a_mismatch(bed: Bed) {
    let (store, me) = (&bed.store, owner("n", "1"));
    store
        .begin_idempotent(&key("k"), &request("r"), &me, 5)
        .await
        .unwrap();
    let other = async || {
        store
            .begin_idempotent(&key("k"), &request("other"), &me, 5)
            .await
            .unwrap()
    };
    assert_eq!(other().await, Begun::Mismatch);
    store
        .finish_idempotent(&key("k"), &me, &answer())
        .await
        .unwrap();
    assert_eq!(other().await, Begun::Mismatch);
    // Each part of the scope makes another key, and parts do not run into each other.
    let scopes = [
        ScopeKey::of("org_b", "key_1", "POST", "/v1/sandboxes", "k"),
        ScopeKey::of("org_a", "key_2", "POST", "/v1/sandboxes", "k"),
        ScopeKey::of("org_a", "key_1", "PUT", "/v1/sandboxes", "k"),
        ScopeKey::of("org_a", "key_1", "POST", "/v1/sandboxe", "sk"),
    ];
    for scope in scopes {
        let begun = store
            .begin_idempotent(&scope, &request("other"), &me, 5)
            .await
            .unwrap();
        assert_eq!(begun, Begun::New);
    }
}

async fn of_fifty_at_once_one_is_new(bed: Bed) {
    check_fifty(&bed, 5).await;
    // The same when the key was used before and its answer has become too old.
    check_fifty(&bed, 6 + DAY).await;
}

async fn check_fifty(bed: &Bed, now: i64) {
    let stores = [Arc::new(bed.another().await), Arc::new(bed.another().await)];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let store = Arc::clone(&stores[number % 2]);
        tasks.spawn(async move {
            let me = owner("n", "1");
            store
                .begin_idempotent(&key("k"), &request("r"), &me, now)
                .await
                .unwrap()
        });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|begun| **begun == Begun::New).count(), 1);
    assert_eq!(
        all.iter()
            .filter(|begun| **begun == Begun::InFlight)
            .count(),
        49
    );
}

async fn a_dead_boot_of_this_node_is_an_interruption(bed: Bed) {
    let (store, dead, me) = (&bed.store, owner("n", "1"), owner("n", "2"));
    store
        .begin_idempotent(&key("k"), &request("r"), &dead, 5)
        .await
        .unwrap();
    let begin = async || {
        store
            .begin_idempotent(&key("k"), &request("r"), &me, 6)
            .await
            .unwrap()
    };
    assert_eq!(
        begin().await,
        Begun::Interrupted {
            owner: dead.clone()
        }
    );
    assert_eq!(
        begin().await,
        Begun::Interrupted {
            owner: dead.clone()
        },
        "until it is taken"
    );
    assert!(
        store
            .take_over_idempotent(&key("k"), &dead, &me, 7)
            .await
            .unwrap()
    );
    assert_eq!(begin().await, Begun::InFlight);
    // Should the dead one not be dead, its answer comes too late.
    assert!(
        !store
            .finish_idempotent(&key("k"), &dead, &answer())
            .await
            .unwrap()
    );
    assert!(!store.abandon_idempotent(&key("k"), &dead).await.unwrap());
    assert!(
        store
            .finish_idempotent(&key("k"), &me, &answer())
            .await
            .unwrap()
    );
    assert_eq!(begin().await, Begun::Replay(answer()));
}

async fn another_nodes_boot_and_lease_speak_for_it(bed: Bed) {
    let (store, far, me) = (&bed.store, owner("far", "1"), owner("n", "1"));
    let begin = async |now| {
        store
            .begin_idempotent(&key("k"), &request("r"), &me, now)
            .await
            .unwrap()
    };
    store
        .begin_idempotent(&key("k"), &request("r"), &far, 5)
        .await
        .unwrap();
    assert_eq!(
        begin(6).await,
        Begun::InFlight,
        "nothing is known of the other node"
    );

    let node = |boot: &str, lease_expires_at| Node {
        id: "far".to_owned(),
        boot_id: boot.to_owned(),
        address: "10.0.0.2:1".to_owned(),
        lease_expires_at,
    };
    store.register_node(&node("1", 100)).await.unwrap();
    assert_eq!(begin(100).await, Begun::InFlight);
    assert_eq!(begin(101).await, Begun::Interrupted { owner: far.clone() });
    assert!(store.renew_lease("far", "1", 200).await.unwrap());
    assert_eq!(begin(101).await, Begun::InFlight);
    store.register_node(&node("2", 300)).await.unwrap();
    assert_eq!(begin(101).await, Begun::Interrupted { owner: far.clone() });
}

async fn of_many_takers_one_takes_over(bed: Bed) {
    let dead = owner("n", "0");
    bed.store
        .begin_idempotent(&key("k"), &request("r"), &dead, 5)
        .await
        .unwrap();
    let stores = [Arc::new(bed.another().await), Arc::new(bed.another().await)];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20_usize {
        let store = Arc::clone(&stores[number % 2]);
        tasks.spawn(async move {
            let (dead, me) = (owner("n", "0"), owner("n", &(number + 1).to_string()));
            store
                .take_over_idempotent(&key("k"), &dead, &me, 6)
                .await
                .unwrap()
        });
    }
    assert_eq!(
        tasks
            .join_all()
            .await
            .into_iter()
            .filter(|taken| *taken)
            .count(),
        1
    );
    let itself = bed
        .store
        .take_over_idempotent(&key("k"), &dead, &dead, 6)
        .await;
    assert!(
        matches!(itself, Err(StoreError::Invalid { .. })),
        "{itself:?}"
    );
}

async fn abandoning_frees_the_key(bed: Bed) {
    let (store, me) = (&bed.store, owner("n", "1"));
    store
        .begin_idempotent(&key("k"), &request("r"), &me, 5)
        .await
        .unwrap();
    assert!(
        !store
            .abandon_idempotent(&key("k"), &owner("n", "2"))
            .await
            .unwrap()
    );
    assert!(store.abandon_idempotent(&key("k"), &me).await.unwrap());
    assert!(!store.abandon_idempotent(&key("k"), &me).await.unwrap());
    assert!(
        !store
            .finish_idempotent(&key("k"), &me, &answer())
            .await
            .unwrap()
    );
    let begun = store
        .begin_idempotent(&key("k"), &request("other"), &me, 5)
        .await
        .unwrap();
    assert_eq!(begun, Begun::New);
}

async fn a_day_later_the_key_is_free(bed: Bed) {
    let (store, me) = (&bed.store, owner("n", "1"));
    store
        .begin_idempotent(&key("k"), &request("r"), &me, 5)
        .await
        .unwrap();
    store
        .finish_idempotent(&key("k"), &me, &answer())
        .await
        .unwrap();
    let begin = async |now| {
        store
            .begin_idempotent(&key("k"), &request("other"), &me, now)
            .await
            .unwrap()
    };
    assert_eq!(begin(5 + DAY).await, Begun::Mismatch);
    assert_eq!(begin(6 + DAY).await, Begun::New);
    assert_eq!(
        begin(7 + DAY).await,
        Begun::InFlight,
        "the old answer is gone"
    );
}

async fn only_old_rows_are_purged(bed: Bed) {
    let (store, me) = (&bed.store, owner("n", "1"));
    // More than one purging statement removes.
    for number in 0..520 {
        let old = key(&format!("old {number}"));
        store
            .begin_idempotent(&old, &request("r"), &me, 5)
            .await
            .unwrap();
    }
    store
        .begin_idempotent(&key("young"), &request("r"), &me, 6)
        .await
        .unwrap();
    assert_eq!(store.purge_idempotent(6 + DAY).await.unwrap(), 520);
    assert_eq!(store.purge_idempotent(6 + DAY).await.unwrap(), 0);
    let begun = store
        .begin_idempotent(&key("young"), &request("r"), &me, 7)
        .await
        .unwrap();
    assert_eq!(begun, Begun::InFlight);
}

async fn a_huge_answer_is_refused(bed: Bed) {
    let (store, me) = (&bed.store, owner("n", "1"));
    store
        .begin_idempotent(&key("k"), &request("r"), &me, 5)
        .await
        .unwrap();
    let mut huge = answer();
    huge.body = vec![0; IDEMPOTENT_BODY_BYTES_MAX + 1];
    let refused = store.finish_idempotent(&key("k"), &me, &huge).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid { .. })),
        "{refused:?}"
    );
    huge.body.pop();
    assert!(
        store
            .finish_idempotent(&key("k"), &me, &huge)
            .await
            .unwrap()
    );
    let begun = store
        .begin_idempotent(&key("k"), &request("r"), &me, 5)
        .await
        .unwrap();
    assert!(
        begun == Begun::Replay(huge),
        "the largest answer comes back whole"
    );
}
