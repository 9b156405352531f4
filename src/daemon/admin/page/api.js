// What this page asks of the daemon that served it: /api/v1/*, described in docs/openapi.json.

/** Milliseconds after which a read is given up. */
const READ_LIMIT = 15000;

let token = "";

/** The bearer token of everything that acts; it is kept in memory only. */
export function useToken(text) {
  token = text.trim();
}

const authorised = headers => token ? { ...headers, Authorization: `Bearer ${token}` } : headers;

async function answered(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { error: text.trim() || `status ${response.status}` };
  }
}

/** JSON of a GET; whatever is no answer of 200 is an error with the daemon's words. */
export async function read(path) {
  const response = await fetch(path, { headers: authorised({}), cache: "no-store", signal: AbortSignal.timeout(READ_LIMIT) });
  const answer = await answered(response);
  if (!response.ok) throw new Error(answer.error ?? `${path}: status ${response.status}`);
  return answer;
}

/** A POST: its status and answer. It may take as long as it does: a reload can rebuild the trainer. */
export async function post(path, body = "", headers = {}) {
  const response = await fetch(path, { method: "POST", headers: authorised(headers), body: body || undefined, cache: "no-store" });
  return { status: response.status, answer: await answered(response) };
}
