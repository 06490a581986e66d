//! Agents: claimed once, by one person; credentials that end with them.

use crate::bed::Bed;
use crate::rows::found;
use crownest_store::{
    AgentClaim, AgentCredential, AgentGrant, AgentRegistration, CredentialInserted, SecretHash,
    SigningKey, StoreError,
};
use std::sync::Arc;

on_both!(
    registrations_that_wait_are_bounded,
    a_claim_takes_the_place_of_the_one_before_and_is_decided_once,
    a_code_is_of_one_pending_claim,
    a_claim_token_is_traded_once,
    credentials_are_of_their_phase_and_few,
    revoking_a_registration_ends_everything_of_it,
    what_is_over_is_purged_and_nothing_else,
    of_many_servers_one_makes_the_next_key,
);

const NOW: i64 = 1_000;
const MAX: i64 = 3;

fn registration(id: &str) -> AgentRegistration {
    AgentRegistration {
        id: format!("areg_{id}"),
        kind: "anonymous".to_owned(),
        status: "anonymous_unclaimed".to_owned(),
        platform: Some("tests".to_owned()),
        context_id: None,
        login_hint: None,
        requested_scopes: vec!["code:run".to_owned()],
        claim_token_hash: Some(SecretHash::of(id)),
        org_id: None,
        user_id: None,
        project_ids: None,
        scopes: Vec::new(),
        created_at: NOW,
        expires_at: NOW + 100,
        claimed_at: None,
        revoked_at: None,
    }
}

fn claim(registration: &str, id: &str, code: &str) -> AgentClaim {
    AgentClaim {
        id: format!("aclaim_{id}"),
        registration_id: format!("areg_{registration}"),
        user_code: code.to_owned(),
        email: "ada@example.org".to_owned(),
        status: "pending".to_owned(),
        created_at: NOW,
        expires_at: NOW + 50,
        polled_at: None,
        decided_at: None,
    }
}

fn credential(registration: &str, id: &str, phase: &str) -> AgentCredential {
    AgentCredential {
        id: format!("acred_{id}"),
        registration_id: format!("areg_{registration}"),
        phase: phase.to_owned(),
        org_id: (phase == "post_claim").then(|| "org_a".to_owned()),
        user_id: None,
        project_ids: None,
        scopes: vec!["code:run".to_owned()],
        created_at: NOW,
        expires_at: NOW + 10,
        revoked_at: None,
    }
}

async fn register(bed: &Bed, id: &str) {
    let row = registration(id);
    let made = bed.store.insert_agent_registration(&row, 100).await;
    assert!(made.unwrap());
}

async fn begin(bed: &Bed, registration: &str, id: &str, code: &str) -> bool {
    let row = claim(registration, id, code);
    bed.store.insert_agent_claim(&row, MAX).await.unwrap()
}

async fn confirm(bed: &Bed, code: &str) -> Option<AgentClaim> {
    let scopes = ["code:run".to_owned()];
    let grant = AgentGrant {
        org_id: "org_a",
        user_id: "usr_a",
        project_ids: None,
        scopes: &scopes,
    };
    let decided = bed.store.decide_agent_claim(code, Some(grant), NOW + 1);
    decided.await.unwrap()
}

async fn status(bed: &Bed, id: &str) -> String {
    let row = bed.store.agent_registration(&format!("areg_{id}")).await;
    row.unwrap().unwrap().status
}

async fn registrations_that_wait_are_bounded(bed: Bed) {
    let insert = async |id, at| {
        let row = AgentRegistration {
            created_at: at,
            expires_at: at + 100,
            ..registration(id)
        };
        let made = bed.store.insert_agent_registration(&row, 2).await;
        made.unwrap()
    };
    assert!(insert("1", NOW).await && insert("2", NOW).await);
    assert!(!insert("3", NOW + 99).await);
    assert!(insert("3", NOW + 100).await, "the others have expired");
    let found = bed.store.agent_registration("areg_1").await.unwrap();
    assert_eq!(found, Some(registration("1")));
}

async fn a_claim_takes_the_place_of_the_one_before_and_is_decided_once(bed: Bed) {
    found(&bed.store, "a").await;
    register(&bed, "1").await;
    assert!(begin(&bed, "1", "1", "000001").await);
    assert!(begin(&bed, "1", "2", "000002").await);
    assert_eq!(status(&bed, "1").await, "pending_claim");
    assert_eq!(confirm(&bed, "000001").await, None, "superseded");
    assert_eq!(confirm(&bed, "000009").await, None);
    let waiting = bed.store.pending_agent_claims(NOW, 10).await.unwrap();
    assert_eq!(waiting, [claim("1", "2", "000002")]);
    let late = bed.store.pending_agent_claims(NOW + 50, 10).await.unwrap();
    assert_eq!(late, []);

    let decided = confirm(&bed, "000002").await.unwrap();
    assert_eq!(
        (decided.status.as_str(), decided.decided_at),
        ("confirmed", Some(NOW + 1))
    );
    assert_eq!(confirm(&bed, "000002").await, None);
    let row = bed
        .store
        .agent_registration("areg_1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.status, "claimed");
    assert_eq!(
        (row.org_id.as_deref(), row.claimed_at),
        (Some("org_a"), Some(NOW + 1))
    );
    assert_eq!(row.scopes, ["code:run"]);
    let of_org = bed.store.agent_registrations("org_a", 10).await.unwrap();
    assert_eq!(of_org, [row]);

    // Denied, then claimed all the same; and so often and no more.
    register(&bed, "2").await;
    for (id, code) in [("3", "000003"), ("4", "000004"), ("5", "000005")] {
        assert!(begin(&bed, "2", id, code).await);
        let denied = bed.store.decide_agent_claim(code, None, NOW + 1).await;
        assert_eq!(denied.unwrap().unwrap().status, "denied");
    }
    assert!(!begin(&bed, "2", "6", "000006").await);
    let newest = bed.store.newest_agent_claim("areg_2").await.unwrap();
    assert_eq!(newest.unwrap().status, "denied");

    // Questions come no faster than they may.
    let poll = async |at| {
        bed.store
            .poll_agent_claim("aclaim_5", at, at - 5)
            .await
            .unwrap()
    };
    assert!(poll(NOW).await && !poll(NOW + 4).await && poll(NOW + 5).await);
}

async fn a_code_is_of_one_pending_claim(bed: Bed) {
    register(&bed, "1").await;
    register(&bed, "2").await;
    assert!(begin(&bed, "1", "1", "000001").await);
    let row = claim("2", "2", "000001");
    let taken = bed.store.insert_agent_claim(&row, MAX).await;
    assert!(
        matches!(taken, Err(StoreError::Conflict { .. })),
        "{taken:?}"
    );
    let later = AgentClaim {
        created_at: NOW + 50,
        expires_at: NOW + 99,
        ..row
    };
    let free = bed.store.insert_agent_claim(&later, MAX).await;
    assert!(free.unwrap(), "the other one has expired");
}

async fn a_claim_token_is_traded_once(bed: Bed) {
    found(&bed.store, "a").await;
    register(&bed, "1").await;
    let token = SecretHash::of("1");
    let early = credential("1", "0", "post_claim");
    assert!(!bed.store.redeem_agent_claim(&token, &early).await.unwrap());
    begin(&bed, "1", "1", "000001").await;
    confirm(&bed, "000001").await.unwrap();
    let store = Arc::new(bed.another().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let row = credential("1", &number.to_string(), "post_claim");
            store.redeem_agent_claim(&token, &row).await.unwrap()
        });
    }
    let traded = tasks.join_all().await;
    assert_eq!(traded.iter().filter(|one| **one).count(), 1);
    let by_token = bed.store.agent_registration_by_claim_token(&token).await;
    assert_eq!(by_token.unwrap(), None);
}

async fn credentials_are_of_their_phase_and_few(bed: Bed) {
    found(&bed.store, "a").await;
    register(&bed, "1").await;
    let insert = async |id, phase| {
        let row = credential("1", id, phase);
        bed.store.insert_agent_credential(&row, 2).await.unwrap()
    };
    assert_eq!(insert("1", "post_claim").await, CredentialInserted::Refused);
    assert_eq!(insert("1", "pre_claim").await, CredentialInserted::New);
    begin(&bed, "1", "1", "000001").await;
    confirm(&bed, "000001").await.unwrap();
    assert_eq!(insert("2", "pre_claim").await, CredentialInserted::Refused);
    assert_eq!(insert("2", "post_claim").await, CredentialInserted::New);
    assert_eq!(insert("3", "post_claim").await, CredentialInserted::Full);
    let found = bed.store.agent_credential("acred_2").await.unwrap();
    assert_eq!(found, Some(credential("1", "2", "post_claim")));
    assert!(
        bed.store
            .revoke_agent_credential("acred_2", NOW)
            .await
            .unwrap()
    );
    assert!(
        !bed.store
            .revoke_agent_credential("acred_2", NOW)
            .await
            .unwrap()
    );
    assert_eq!(bed.store.agent_credential("acred_2").await.unwrap(), None);
    assert_eq!(insert("3", "post_claim").await, CredentialInserted::New);
}

async fn revoking_a_registration_ends_everything_of_it(bed: Bed) {
    found(&bed.store, "a").await;
    register(&bed, "1").await;
    begin(&bed, "1", "1", "000001").await;
    let row = credential("1", "1", "pre_claim");
    bed.store.insert_agent_credential(&row, MAX).await.unwrap();
    let revoke = async |id| bed.store.revoke_agent_registration(id, NOW).await.unwrap();
    assert!(revoke("areg_1").await);
    assert!(!revoke("areg_1").await && !revoke("areg_9").await);
    assert_eq!(status(&bed, "1").await, "revoked");
    assert_eq!(bed.store.agent_credential("acred_1").await.unwrap(), None);
    assert_eq!(confirm(&bed, "000001").await, None);
    let row = credential("1", "2", "pre_claim");
    let refused = bed.store.insert_agent_credential(&row, MAX).await.unwrap();
    assert_eq!(refused, CredentialInserted::Refused);
}

async fn what_is_over_is_purged_and_nothing_else(bed: Bed) {
    found(&bed.store, "a").await;
    for id in ["1", "2"] {
        register(&bed, id).await;
        begin(&bed, id, id, &format!("00000{id}")).await;
        let row = credential(id, id, "pre_claim");
        bed.store.insert_agent_credential(&row, MAX).await.unwrap();
    }
    confirm(&bed, "000002").await.unwrap();
    assert_eq!(bed.store.purge_agents(NOW).await.unwrap(), 0);
    // Both credentials have expired.
    assert_eq!(bed.store.purge_agents(NOW + 100).await.unwrap(), 2);
    // The registration that nobody wanted goes, with its claim.
    assert_eq!(bed.store.purge_agents(NOW + 101).await.unwrap(), 2);
    assert_eq!(bed.store.agent_registration("areg_1").await.unwrap(), None);
    assert_eq!(status(&bed, "2").await, "claimed");
}

async fn of_many_servers_one_makes_the_next_key(bed: Bed) {
    let key = |id: &str, created_at| SigningKey {
        id: id.to_owned(),
        algorithm: "EdDSA".to_owned(),
        private_key: vec![1],
        public_key: vec![2],
        created_at,
    };
    let insert = async |id, at, newer_than| {
        let made = bed.store.insert_signing_key(&key(id, at), newer_than).await;
        made.unwrap()
    };
    assert!(insert("a", 10, 0).await);
    assert!(!insert("b", 11, 9).await, "that one is new enough");
    assert!(insert("c", 20, 10).await);
    let keys = bed.store.signing_keys().await.unwrap();
    assert_eq!(keys, [key("c", 20), key("a", 10)]);
    assert_eq!(bed.store.delete_signing_keys(20).await.unwrap(), 1);
    assert_eq!(bed.store.signing_keys().await.unwrap(), [key("c", 20)]);
}
