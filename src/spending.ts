// The calls of docs/how-to/spend.md and docs/how-to/show-balance.md. After make tools, make test compiles them against
// the generated types.

import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { Database } from "./types/supabase.js";

type Client = SupabaseClient<Database>;

// Only on your server: the service key bypasses row-level security.
export const connect = (url: string, serviceKey: string): Client => createClient<Database>(url, serviceKey);

// Returns the new balance, or null if the available credits do not cover the cost. A repeated id debits nothing more.
export async function authorize(
  supabase: Client,
  userId: string,
  cost: number,
  generationId: string,
): Promise<number | null> {
  const { data, error } = await supabase
    .rpc("authorize_generation", {
      p_user_id: userId,
      p_cost: cost,
      p_generation_id: generationId,
    })
    .abortSignal(AbortSignal.timeout(10_000));
  if (error?.code === "CR001") return null;
  if (error) throw error;
  return data;
}

// Refunds a failed generation once, however often it is called, and returns the balance.
export async function refund(supabase: Client, generationId: string): Promise<number> {
  const { data, error } = await supabase
    .rpc("refund_generation", {
      p_generation_id: generationId,
    })
    .abortSignal(AbortSignal.timeout(10_000));
  if (error) throw error;
  return data;
}

// Holds credits. Returns what is still available, or null if that does not cover the cost.
export async function reserve(
  supabase: Client,
  userId: string,
  cost: number,
  generationId: string,
  expiresIn: string,
): Promise<number | null> {
  const { data, error } = await supabase
    .rpc("reserve_generation", {
      p_user_id: userId,
      p_cost: cost,
      p_generation_id: generationId,
      p_expires_in: expiresIn,
    })
    .abortSignal(AbortSignal.timeout(10_000));
  if (error?.code === "CR001") return null;
  if (error) throw error;
  return data;
}

// Debits a hold and returns the new balance, or null if the hold expired and its credits were spent meanwhile.
export async function capture(supabase: Client, generationId: string, cost: number): Promise<number | null> {
  const { data, error } = await supabase
    .rpc("capture_generation", {
      p_generation_id: generationId,
      p_cost: cost,
    })
    .abortSignal(AbortSignal.timeout(10_000));
  if (error?.code === "CR001") return null;
  if (error) throw error;
  return data;
}

// Ends a hold without a debit and returns the available credits.
export async function release(supabase: Client, generationId: string): Promise<number> {
  const { data, error } = await supabase
    .rpc("release_generation", {
      p_generation_id: generationId,
    })
    .abortSignal(AbortSignal.timeout(10_000));
  if (error) throw error;
  return data;
}

// Without a code: a timeout, a lost connection, a gateway error. With one of these codes: trouble of the database itself.
const unanswered = /^$|^(08|40|53|55|57|PGRST00)/;

// Repeats the call with the same id until it is answered. It may have succeeded before, and counts once.
export async function untilAnswered<T>(call: () => Promise<T>): Promise<T> {
  for (const seconds of [1, 2, 4, 8, 16]) {
    try {
      return await call();
    } catch (error) {
      if (!unanswered.test((error as { code?: string }).code ?? "")) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
  return await call();
}

// Runs a job that may cost up to `most` credits. `run` returns what it did cost.
// The result is the new balance, "insufficient" if the job was not run, or "unpaid" if it ran longer than its hold.
export async function generate(
  supabase: Client,
  userId: string,
  most: number,
  generationId: string,
  run: () => Promise<number>,
): Promise<number | "insufficient" | "unpaid"> {
  const available = await untilAnswered(() => reserve(supabase, userId, most, generationId, "2 hours"));
  if (available === null) return "insufficient";
  let cost: number;
  try {
    cost = await run();
  } catch (error) {
    await untilAnswered(() => release(supabase, generationId));
    throw error;
  }
  return (await untilAnswered(() => capture(supabase, generationId, cost))) ?? "unpaid";
}

export type Account = { balance: number; held: number; available: number; nextExpiry: string | null };

// In the browser, with the user's own token: row-level security returns the user's own row and holds.
// One request, so balance and holds belong together. "now" is the database's time.
export async function account(supabase: Client): Promise<Account> {
  const { data, error } = await supabase
    .from("users")
    .select("credits_balance, generation_holds(amount, expires_at)")
    .is("generation_holds.captured_at", null)
    .is("generation_holds.released_at", null)
    .gt("generation_holds.expires_at", "now")
    .order("expires_at", { referencedTable: "generation_holds" })
    .single();
  if (error) throw error;
  const held = data.generation_holds.reduce((sum, hold) => sum + hold.amount, 0);
  return {
    balance: data.credits_balance,
    held,
    available: data.credits_balance - held,
    nextExpiry: data.generation_holds[0]?.expires_at ?? null,
  };
}

// In the browser, with the user's own token: the user's own entries.
export async function history(supabase: Client) {
  const { data, error } = await supabase
    .from("transactions")
    .select("amount, type, description, created_at")
    .order("created_at", { ascending: false })
    .limit(50);
  if (error) throw error;
  return data;
}

// Calls back with the account, and again after each change and expiry. Returns the function that stops it.
export function watchAccount(supabase: Client, userId: string, onAccount: (account: Account) => void) {
  let reads = 0;
  let timer: ReturnType<typeof setTimeout>;
  // Each change reads the account again. A response that a later read overtakes is dropped.
  const read = async () => {
    const number = ++reads;
    const current = await account(supabase);
    if (number !== reads) return;
    onAccount(current);
    clearTimeout(timer);
    if (current.nextExpiry === null) return;
    // No row changes when a hold expires. The limits are for a browser whose clock is wrong.
    const left = Date.parse(current.nextExpiry) - Date.now();
    timer = setTimeout(read, Math.min(Math.max(left, 1000), 60_000));
  };
  const users = { schema: "public", table: "users", filter: `id=eq.${userId}` };
  const holds = { schema: "public", table: "generation_holds", filter: `user_id=eq.${userId}` };
  const channel = supabase
    .channel(`account:${crypto.randomUUID()}`) // unique: a second subscriber to the same name is rejected
    .on("postgres_changes", { event: "UPDATE", ...users }, read)
    .on("postgres_changes", { event: "INSERT", ...holds }, read)
    .on("postgres_changes", { event: "UPDATE", ...holds }, read)
    // Read after subscribing: the read then includes earlier changes, also those made while the page was offline.
    .subscribe((status) => status === "SUBSCRIBED" && read());
  return () => {
    reads += 1;
    clearTimeout(timer);
    return supabase.removeChannel(channel);
  };
}
