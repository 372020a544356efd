-- Returns a generation as json: its ledger row, the row that gave its credits back, and its hold; null where there is none.

select
    (
        select to_jsonb(entry)
        from public.transactions as entry
        where id = %(id)s and type = 'GENERATION'
    ) as entry,
    (
        select to_jsonb(entry)
        from public.transactions as entry
        where refunds = %(id)s
    ) as refund,
    (
        select to_jsonb(hold)
        from public.generation_holds as hold
        where id = %(id)s
    ) as hold
