// The calls of docs/spending.md. After make tools, make test compiles them against the generated types.

import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { Database, Tables } from "./types/supabase.js";

type Client = SupabaseClient<Database>;

// On your server alone: the service key passes by row-level security.
export const connect = (url: string, serviceKey: string): Client => createClient<Database>(url, serviceKey);

// The new balance, or null where the credits do not suffice. The same id again debits nothing more.
export async function authorize(
  supabase: Client,
  userId: string,
  cost: number,
  generationId: string,
): Promise<number | null> {
  const { data, error } = await supabase.rpc("authorize_generation", {
    p_user_id: userId,
    p_cost: cost,
    p_generation_id: generationId,
  });
  if (error?.code === "CR001") return null;
  if (error) throw error;
  return data;
}

// Gives a failed generation's credits back, once however often it is called, and returns the balance.
export async function refund(supabase: Client, generationId: string): Promise<number> {
  const { data, error } = await supabase.rpc("refund_generation", {
    p_generation_id: generationId,
  });
  if (error) throw error;
  return data;
}

// In the browser, with the user's own token: row-level security leaves one row, and the user's own entries.
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

// Calls back with each new balance until the channel is closed: supabase.removeChannel(channel).
export function watchBalance(supabase: Client, userId: string, onBalance: (balance: number) => void) {
  return supabase
    .channel("balance")
    .on<Tables<"users">>(
      "postgres_changes",
      {
        event: "UPDATE",
        schema: "public",
        table: "users",
        filter: `id=eq.${userId}`,
      },
      (change) => onBalance(change.new.credits_balance),
    )
    .subscribe();
}
