-- migrate:up

-- Accounts that come and go: a new user gets what waited for them, and a user can be erased, which is the one deliberate
-- way to delete ledger rows, for a person's right to be forgotten.

-- security definer: Supabase Auth and service_role create users. An error here must not keep anybody from signing up, nor
-- must thousands of sales that wait.
create function billing.settle_new_users() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s'
    -- By index, as in record(): a session keeps the plans that it made while the tables were short.
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
as $$
declare
    v_user_ids constant uuid[] := array(select id from new_users);
    v_pseudonyms uuid[];
    v_subject_ids text[];
    v_payment_ids text[];
    v_first constant integer := 100;
    v_until constant timestamptz := clock_timestamp() + interval '2 seconds';
begin
    perform pg_advisory_xact_lock_shared(4242, sign_ups.key)
    from (
        select distinct billing.sign_up_key(id) as key
        from unnest(v_user_ids) as id
        order by key
    ) as sign_ups;
    v_pseudonyms := array(
        select billing.pseudonym_of(id)
        from unnest(v_user_ids) as id
        where billing.is_erased_user(id)
    );
    v_subject_ids := array(
        select unnest(array_remove(array[subject_id, customer_id], null))
        from billing.claims
        where user_id = any (v_user_ids || v_pseudonyms)
    );
    if cardinality(v_subject_ids) + cardinality(v_pseudonyms) > 0 then
        perform billing.lock_payments(v_subject_ids);
        perform billing.revive_claims(v_user_ids);
        v_payment_ids := array(
            select payment_id
            from billing.sales
            where subscription_id = any (v_subject_ids) or customer_id = any (v_subject_ids)
        );
        perform billing.lock_users(jsonb_build_array(jsonb_build_object('settles', v_payment_ids)));
        while cardinality(v_payment_ids) > 0 loop
            if clock_timestamp() > v_until then
                raise warning '% sales of new users are not settled yet', cardinality(v_payment_ids)
                    using hint = 'webhook audit lists them; the next event of each sale settles it.';
                exit;
            end if;
            perform billing.settle_again(v_payment_ids[:v_first], null);
            v_payment_ids := v_payment_ids[v_first + 1:];
        end loop;
    end if;
    return null;
exception
    -- The caller's statement_timeout ends the settlement, too, and not the sign-up.
    when query_canceled or others then
        raise warning 'the sales that wait for new users are not settled: %', sqlerrm
            using hint = 'webhook audit lists them; the next event of each sale settles it.';
        return null;
end
$$;

comment on function billing.settle_new_users() is
    'Settles the sales that the waiting claims of new users win, for about two seconds. An error is a warning, and so are sales that are left.';

revoke all on function billing.settle_new_users() from public, anon, authenticated, service_role;

create trigger users_settle_claims
    after insert on public.users
    referencing new table as new_users
    for each statement
    execute function billing.settle_new_users();


create function billing.forget_users(p_user_ids uuid[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.erased_users (user_hash)
    select sha256(id::text::bytea)
    from unnest(p_user_ids) as id
    on conflict (user_hash) do nothing;
    insert into billing.claims as known (subject_id, user_id, level, customer_id, created, is_erased)
    select subject_id, billing.pseudonym_of(user_id), level, customer_id, created, true
    from billing.claims
    where user_id = any (p_user_ids)
    on conflict (subject_id, user_id, level) do update
        set
            customer_id = least(known.customer_id, excluded.customer_id),
            created = greatest(known.created, excluded.created);
    delete from billing.claims
    where user_id = any (p_user_ids);
end
$$;

comment on function billing.forget_users(uuid[]) is
    'Turns the claims of users who are gone into tombstones, so that other users do not win what these users had claimed.';

revoke all on function billing.forget_users(uuid[]) from public, anon, authenticated, service_role;


-- security definer: the role that deletes an account may neither delete claims nor read accounts.
create function billing.forget_accounts() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- A row that was deleted here alone comes back with copy_accounts().
    perform billing.forget_users(array(
        select id
        from old_users
        where not exists (select from auth.users as accounts where accounts.id = old_users.id)
    ));
    return null;
end
$$;

comment on function billing.forget_accounts() is
    'Forgets the users whose accounts are deleted.';

revoke all on function billing.forget_accounts() from public, anon, authenticated, service_role;

create trigger users_forget_claims
    after delete on public.users
    referencing old table as old_users
    for each statement
    execute function billing.forget_accounts();


create function billing.revive_claims(p_user_ids uuid[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.claims as known (subject_id, user_id, level, customer_id, created)
    select subject_id, id, level, customer_id, created
    from unnest(p_user_ids) as id
    join billing.claims on user_id = billing.pseudonym_of(id) and is_erased
    on conflict (subject_id, user_id, level) do update
        set
            customer_id = least(known.customer_id, excluded.customer_id),
            created = greatest(known.created, excluded.created);
    delete from billing.claims
    where is_erased and user_id in (select billing.pseudonym_of(id) from unnest(p_user_ids) as id);
    delete from billing.erased_users
    where user_hash in (select sha256(id::text::bytea) from unnest(p_user_ids) as id);
end
$$;

comment on function billing.revive_claims(uuid[]) is
    'Gives users who exist again the claims that their accounts left as tombstones.';

revoke all on function billing.revive_claims(uuid[]) from public, anon, authenticated, service_role;


create function billing.names_user(p_payload json, p_user_id uuid) returns boolean
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return strpos(lower(p_payload::text), p_user_id::text) > 0;

comment on function billing.names_user(json, uuid) is
    'Returns whether the body of an event contains the id of a user.';

revoke all on function billing.names_user(json, uuid) from public, anon, authenticated, service_role;

grant execute on function billing.names_user(json, uuid) to service_role;


-- As text: the operators of json reject a body that contains \u0000 or half a surrogate pair.
create function billing.unescaped(p_payload json) returns text
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_text text := replace(p_payload::text, '\/', '/');
    v_code text;
begin
    for v_code in
        select distinct code[1]
        from regexp_matches(v_text, '\\u([0-9A-Fa-f]{4})', 'g') as escapes (code)
        where code[1] !~* '^(00[01].|0022|005c|d[89a-f]..)$'
    loop
        v_text := replace(v_text, '\u' || v_code, chr(('x' || v_code)::bit(16)::integer));
    end loop;
    return v_text;
end
$$;

comment on function billing.unescaped(json) is
    'Returns JSON text whose letters are not escaped: ü for \u00fc. Quotes, control characters and surrogates stay escaped.';

revoke all on function billing.unescaped(json) from public, anon, authenticated, service_role;

grant execute on function billing.unescaped(json) to service_role;


create function billing.names_email(p_payload json, p_email text) returns boolean
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return strpos(lower(billing.unescaped(p_payload)), lower(to_json(p_email)::text)) > 0;

comment on function billing.names_email(json, text) is
    'Returns whether a whole string in the body of an event is an e-mail address.';

revoke all on function billing.names_email(json, text) from public, anon, authenticated, service_role;

grant execute on function billing.names_email(json, text) to service_role;


create function billing.payments_of_user(p_user_id uuid) returns text[]
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select billing.linked_payments(array(
        select id
        from (
            select coalesce(payment_id, stripe_id)
            from public.transactions
            where user_id = p_user_id and stripe_id is not null
            union
            select payment_id
            from billing.sales
            where user_id = p_user_id
            union
            select payment_id
            from billing.assignments
            where user_id = p_user_id
            union
            select payment_id
            from billing.parked_events
            where
                payment_id is not null
                and billing.names_user(payload, p_user_id)
                and coalesce(lower(user_reference), p_user_id::text) = p_user_id::text
        ) as named (id)
        left join billing.sale_of(billing.linked_payments(array[id])) as sale on true
        where coalesce(sale.user_id, p_user_id) = p_user_id and sale.claimants is null
    ))
$$;

comment on function billing.payments_of_user(uuid) is
    'Returns all ids of the payments that name a user, apart from payments that turned out to be another user''s.';

revoke all on function billing.payments_of_user(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.payments_of_user(uuid) to service_role;


create function billing.nameless_payments_of(p_user_id uuid) returns text[]
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(distinct id), '{}')
    from (
        select payment_id, false as names_user
        from billing.sales
        where
            subscription_id in (select subject_id from billing.claims where user_id = p_user_id)
            or customer_id in (
                select unnest(array[subject_id, customer_id]) from billing.claims
                where user_id = p_user_id
            )
        union all
        select coalesce(payment_id, stripe_id), false
        from public.transactions
        where user_id = p_user_id and stripe_id is not null
        union all
        select payment_id, true
        from billing.parked_events
        where payment_id is not null and user_reference is null and billing.names_user(payload, p_user_id)
    ) as found
    cross join lateral billing.linked_payments(array[payment_id]) as linked
    cross join lateral billing.sale_of(linked) as sale
    cross join lateral unnest(linked) as id
    where sale.claimants = array[p_user_id] or (names_user and sale.claimants = '{}')
$$;

comment on function billing.nameless_payments_of(uuid) is
    'Returns all ids of the sales that name no user and belong to a user: claims lead to this user, or a parked event names the user and no claim counts.';

revoke all on function billing.nameless_payments_of(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.nameless_payments_of(uuid) to service_role;


create function billing.erase_user(p_user_id uuid) returns void
    language plpgsql
    set search_path = ''
as $$
declare
    v_payment_ids text[];
    v_nameless text[];
    v_others jsonb;
    v_other record;
    v_event_ids text[];
    v_email text;
begin
    perform billing.lock_payments(
        billing.payments_of_user(p_user_id)
        || billing.nameless_payments_of(p_user_id)
        || array(
            select pg_catalog.unnest(pg_catalog.array_remove(array[subject_id, customer_id], null))
            from billing.claims
            where user_id = p_user_id
        )
    );
    select email into v_email
    from public.users
    where id = p_user_id
    for update;
    -- Read again under the locks: a sale of this user may have been recorded while they were awaited.
    v_payment_ids := billing.payments_of_user(p_user_id);
    v_nameless := billing.nameless_payments_of(p_user_id);

    -- This locks out every other writer of the ledger until the transaction ends, so no other delete can slip through.
    alter table public.transactions disable trigger transactions_append_only;
    delete from public.transactions
    where user_id = p_user_id;
    alter table public.transactions enable trigger transactions_append_only;
    delete from public.generation_holds
    where user_id = p_user_id;

    insert into billing.sales (payment_id, version, paid, erased_at)
    select
        id,
        1,
        true,
        now()
    from unnest(v_payment_ids) as id
    on conflict (payment_id, version) do nothing;
    update billing.sales
    set
        user_id = null,
        credits = null,
        money_amount = null,
        currency = null,
        subscription_id = null,
        customer_id = null,
        erased_at = now()
    where payment_id = any (v_payment_ids);
    update billing.sales
    set user_id = null
    where user_id = p_user_id;
    -- These sales name no user. If another user wins them later, they must not depend on when this user was erased.
    update billing.sales
    set forgotten_at = now()
    where payment_id = any (v_nameless);
    delete from billing.reversals
    where payment_id = any (v_payment_ids);
    with deleted as (
        delete from billing.parked_events
        where
            payment_id = any (v_payment_ids || v_nameless)
            or billing.names_email(payload, v_email)
            or pg_catalog.lower(payer_email) = pg_catalog.lower(v_email)
            or (
                billing.names_user(payload, p_user_id)
                and pg_catalog.lower(coalesce(user_reference, p_user_id::pg_catalog.text)) = p_user_id::pg_catalog.text
                and (payment_id is null or user_reference is not null)
            )
        returning
            event_id,
            payment_id,
            reason
    )
    select
        pg_catalog.array_agg(deleted.event_id),
        pg_catalog.jsonb_object_agg(deleted.payment_id, deleted.reason) filter (
            where
                deleted.payment_id is not null
                and deleted.payment_id <> all (v_payment_ids || v_nameless)
                and not coalesce(sale.erased or billing.lacks_nothing(sale), false)
        )
    into v_event_ids, v_others
    from deleted
    left join lateral billing.sale_of(billing.linked_payments(array[deleted.payment_id])) as sale on true;
    -- Here the user is not the one who receives the credits, such as the payer of a gift.
    update billing.parked_events
    set
        payload = pg_catalog.regexp_replace(
            payload::pg_catalog.text,
            p_user_id::pg_catalog.text,
            billing.pseudonym_of(p_user_id)::pg_catalog.text,
            'gi'
        )::pg_catalog.json
    where billing.names_user(payload, p_user_id);

    alter table billing.operator_actions disable trigger operator_actions_append_only;
    update billing.operator_actions
    set
        subject = null,
        reason = null,
        description = null
    where
        subject = any (v_payment_ids || v_nameless || v_event_ids || p_user_id::pg_catalog.text)
        or number in (select assignments.number from billing.assignments where user_id = p_user_id);
    alter table billing.operator_actions enable trigger operator_actions_append_only;
    delete from billing.assignments
    where payment_id = any (v_payment_ids) or (user_id = p_user_id and credits is null);
    update billing.assignments
    set user_id = null
    where user_id = p_user_id;

    delete from public.users
    where id = p_user_id;
    if found then
        perform billing.forget_users(array[p_user_id]);
    end if;
    -- Another user's sale stays listed, without the event.
    for v_other in
        select *
        from pg_catalog.jsonb_each_text(v_others) as other (payment_id, reason)
    loop
        perform billing.park_sale(billing.linked_payments(array[v_other.payment_id]), v_other.reason, true);
    end loop;
end
$$;

comment on function billing.erase_user(uuid) is
    'Erases the ledger rows, holds, facts, parked events and users row of a user, and blanks what operators wrote about them. Run by the owner; the row in auth.users can be deleted afterwards. Leaves the payment ids, a hash of the user''s id and the claims under a pseudonym as tombstones, so that later deliveries about them store nothing. Sales that name nobody keep their facts.';

revoke all on function billing.erase_user(uuid) from public, anon, authenticated, service_role;

-- migrate:down
