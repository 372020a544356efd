// The calls of docs/how-to/spend.md. After make tools, make test compiles them against the generated types.

import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { Database, Tables } from "./types/supabase.js";

type Client = SupabaseClient<Database>;

// Only on your server: the service key bypasses row-level security.
export const connect = (url: string, serviceKey: string): Client => createClient<Database>(url, serviceKey);

// Returns the new balance, or null if it does not cover the cost. A repeated id debits nothing more.
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

// In the browser, with the user's own token: row-level security returns the user's own row and entries.
export async function account(supabase: Client) {
  const { data: user, error } = await supabase.from("users").select("credits_balance").single();
  if (error) throw error;
  const { data: entries, error: trouble } = await supabase
    .from("transactions")
    .select("amount, type, created_at")
    .order("created_at", { ascending: false })
    .limit(50);
  if (trouble) throw trouble;
  return { balance: user.credits_balance, entries };
}

// Calls back with the balance, then with each new one. To stop: supabase.removeChannel(channel).
export function watchBalance(supabase: Client, userId: string, onBalance: (balance: number) => void) {
  let changes = 0;
  // Read after subscribing: the read then includes earlier changes, also those made while the page was offline.
  const read = async (status: string) => {
    if (status !== "SUBSCRIBED") return;
    const before = changes;
    const { data, error } = await supabase.from("users").select("credits_balance").eq("id", userId).single();
    if (error) throw error;
    if (changes === before) onBalance(data.credits_balance); // else a newer change has arrived
  };
  return supabase
    .channel(`balance:${crypto.randomUUID()}`) // unique: a second subscriber to the same name is rejected
    .on<Tables<"users">>(
      "postgres_changes",
      {
        event: "UPDATE",
        schema: "public",
        table: "users",
        filter: `id=eq.${userId}`,
      },
      (change) => {
        changes += 1;
        onBalance(change.new.credits_balance);
      },
    )
    .subscribe(read);
}
