//! The lists that grow for ever are read through their indexes: a page costs the same in a large
//! installation as in a small one. (SQLite only; PostgreSQL plans by the size of the tables.)

use crate::{Store, StoreOptions, audit_events, code_runs, commands, sandboxes, workspace_runs};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

async fn plan(connection: &mut SqliteConnection, sql: &str) -> String {
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let steps = sqlx::raw_sql(sql).fetch_all(connection).await.unwrap();
    let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
    steps.join("\n")
}

#[tokio::test]
async fn pages_are_read_through_an_index_that_is_already_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    Store::open(path.to_str().unwrap(), &StoreOptions::default())
        .await
        .unwrap()
        .close()
        .await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = options.connect().await.unwrap();

    let cases = [
        (sandboxes::LIST_LIVE_SQLITE, "sandboxes_live"),
        (sandboxes::LIST_ALL_SQLITE, "sandboxes_newest"),
        (workspace_runs::LIST_SQLITE, "workspace_runs_newest"),
        (audit_events::LIST, "audit_events_newest"),
        (audit_events::LIST_OF_RESOURCE, "audit_events_of_resource"),
        (commands::LIST, "commands_newest"),
        (code_runs::LIST, "code_runs_newest"),
    ];
    for (sql, index) in cases {
        let plan = plan(&mut connection, sql).await;
        assert!(plan.contains(&format!("INDEX {index} ")), "{plan}");
        assert!(!plan.contains("ORDER BY"), "sorted afterwards: {plan}");
    }
}
