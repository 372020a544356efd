-- migrate:up

-- What operators did by hand: an append-only list. The functions of billing_operator write it, together with the effect of
-- each action.

-- All databases of a server share its roles, so another session may create it at the same time.
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'billing_operator') then
        create role billing_operator nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception '% may not create the role billing_operator: run "create role billing_operator" as an admin, then migrate again', current_user
            using errcode = 'insufficient_privilege';
end
$$;

grant usage on schema billing to billing_operator;


create table billing.operator_actions (
    number bigint generated always as identity
        constraint operator_actions_pkey primary key,
    id uuid not null
        constraint operator_actions_id_key unique,
    action text not null
        constraint operator_actions_action_known check (action in ('adjust', 'assign', 'withdraw', 'discard')),
    subject text,
    by text not null,
    channel text not null
        constraint operator_actions_channel_known check (channel in ('cli', 'console', 'sql')),
    login text not null,
    reason text,
    description text,
    credits_given bigint not null default 0
        constraint operator_actions_credits_given_not_negative check (credits_given >= 0),
    credits_taken bigint not null default 0
        constraint operator_actions_credits_taken_not_negative check (credits_taken >= 0),
    created_at timestamptz not null default now()
);

comment on table billing.operator_actions is
    'Adjustments, assigned sales and discarded events: each action of an operator. Rows are never changed or deleted, but billing.erase_user() blanks subject, reason and description.';

comment on column billing.operator_actions.number is
    'Counts the actions of all kinds. There are gaps, because a refused action uses its number up.';

comment on column billing.operator_actions.id is
    'Chosen by the caller: the same id acts once. The ledger row of an adjustment has the same id.';

comment on column billing.operator_actions.subject is
    'The user of an adjustment, the payment of an assignment or withdrawal, or the discarded event. Null after billing.erase_user().';

comment on column billing.operator_actions.by is
    'The operator''s name as given. login is what the database knows.';

comment on column billing.operator_actions.channel is
    'Where the operator acted: cli is the command line, sql a direct call of the function.';

comment on column billing.operator_actions.login is
    'The login of the database connection.';

comment on column billing.operator_actions.reason is
    'Why, for the team. Null after billing.erase_user().';

comment on column billing.operator_actions.description is
    'What the user''s history shows for an adjustment. Null after billing.erase_user().';

comment on column billing.operator_actions.credits_given is
    'Credits added to balances.';

comment on column billing.operator_actions.credits_taken is
    'Credits taken from balances, not below 0.';

create index operator_actions_subject_idx on billing.operator_actions (subject, number);

revoke all on billing.operator_actions from public, anon, authenticated, service_role;

grant select on billing.operator_actions to service_role;

alter table billing.operator_actions enable row level security;

create policy operator_actions_service_role on billing.operator_actions
    for select
    to service_role
    using (true);


create function billing.refuse_action_change() returns trigger
    language plpgsql
    set search_path = ''
as $$
begin
    raise exception 'billing.operator_actions is append-only: % is refused', pg_catalog.lower(tg_op)
        using
            errcode = 'insufficient_privilege',
            hint = 'Undo an action with another one; billing.erase_user(uuid) erases a user.';
end
$$;

comment on function billing.refuse_action_change() is
    'Rejects every update, delete and truncate of the operators'' actions, also by the owner.';

revoke all on function billing.refuse_action_change() from public, anon, authenticated, service_role;

create trigger operator_actions_append_only
    before update or delete or truncate on billing.operator_actions
    for each statement
    execute function billing.refuse_action_change();


-- No constraint of the table: erase_user() leaves rows without a reason.
create function billing.check_action_texts(p_reason text, p_by text, p_description text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if num_nulls(nullif(btrim(p_reason), ''), nullif(btrim(p_by), '')) > 0 or btrim(p_description) = '' then
        raise exception 'missing_text'
            using
                errcode = 'CR010',
                detail = 'The reason, the operator''s name or the description is empty.',
                hint = 'Nothing was changed.';
    end if;
    if char_length(p_reason) > 1000 or char_length(p_by) > 100 or char_length(p_description) > 200 then
        raise exception 'text_too_long'
            using
                errcode = 'CR010',
                detail = 'A reason has at most 1000 characters, a name 100 and a description 200.',
                hint = 'Nothing was changed.';
    end if;
end
$$;

comment on function billing.check_action_texts(text, text, text) is
    'Rejects an action without a reason or name, or with a text that is too long. Error: CR010 missing_text or text_too_long.';

revoke all on function billing.check_action_texts(text, text, text) from public, anon, authenticated, service_role;


create function billing.add_action(
    p_number bigint,
    p_id uuid,
    p_action text,
    p_subject text,
    p_by text,
    p_channel text,
    p_reason text,
    p_description text,
    p_credits_given bigint,
    p_credits_taken bigint
) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.operator_actions (
        number, id, action, subject, by, channel, login, reason, description, credits_given, credits_taken
    )
    overriding system value
    values (
        p_number, p_id, p_action, p_subject, p_by, p_channel, session_user, p_reason, p_description, p_credits_given,
        p_credits_taken
    );
end
$$;

comment on function billing.add_action(bigint, uuid, text, text, text, text, text, text, bigint, bigint) is
    'Appends an action under a number of the table''s sequence.';

revoke all on function billing.add_action(bigint, uuid, text, text, text, text, text, text, bigint, bigint)
from public, anon, authenticated, service_role;


create table billing.assignments (
    number bigint not null
        constraint assignments_pkey primary key,
    payment_id text not null,
    user_id uuid,
    credits bigint
        constraint assignments_credits_range check (credits between 1 and 1000000000),
    withdrawn_by bigint,
    constraint assignments_not_empty check (num_nonnulls(user_id, credits) > 0)
);

comment on table billing.assignments is
    'Users and credits of sales as operators set them. In each column the highest number that is not withdrawn counts, before all facts from Stripe and for all linked payments.';

comment on column billing.assignments.number is
    'The number of the operator''s action, which is written after the assignment and the ledger rows.';

comment on column billing.assignments.payment_id is
    'One of the payments of the sale.';

comment on column billing.assignments.withdrawn_by is
    'The number of the action that ended it. It does not count any more.';

create index assignments_payment_id_idx on billing.assignments (payment_id);

revoke all on billing.assignments from public, anon, authenticated, service_role;

grant select on billing.assignments to service_role;

alter table billing.assignments enable row level security;

create policy assignments_service_role on billing.assignments
    for select
    to service_role
    using (true);

-- migrate:down
