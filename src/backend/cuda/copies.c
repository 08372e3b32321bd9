/* Sums of gradients by copies into the other ranks' inboxes: the host's side. */
#include "backend/cuda/copies.h"

#include <string.h>

#include "base/size.h"
#include "program/places.h"

static bool works(cudaError_t error) {
  if (error != cudaSuccess) (void)niti_cuda_runtime.cudaGetLastError();
  return error == cudaSuccess;
}

static size_t round_up(size_t bytes) { return niti_round_up(bytes, NITI_ALIGN); }

static bool make_stream(NitiCopies *c, const NitiCuda *cuda) {
  return works(niti_cuda_runtime.cudaSetDevice(cuda->device)) &&
         works(niti_cuda_runtime.cudaStreamCreateWithFlags(&c->side, cudaStreamNonBlocking)) &&
         works(niti_cuda_runtime.cudaEventCreateWithFlags(&c->reached, cudaEventDisableTiming));
}

static void close_stream(NitiCopies *c) {
  if (c->side) (void)works(niti_cuda_runtime.cudaStreamDestroy(c->side));
  if (c->reached) (void)works(niti_cuda_runtime.cudaEventDestroy(c->reached));
  c->side = NULL;
  c->reached = NULL;
}

NitiStatus niti_copies_open(NitiCopies *c, NitiCuda *cuda, NitiRanks *ranks, size_t bytes) {
  memset(c, 0, sizeof *c);
  c->bytes = round_up(bytes);
  const size_t others = (size_t)niti_ranks_size(ranks) - 1;
  const bool able = niti_ranks_size(ranks) <= NITI_COPIES_RANKS && make_stream(c, cuda);
  const NitiStatus status = niti_shared_open(&c->inboxes, cuda, ranks, others * c->bytes + sizeof(int64_t), able);
  if (!c->inboxes.open) close_stream(c);
  return status;
}

static void end_copies(NitiCopies *c, const NitiCuda *cuda) {
  (void)works(niti_cuda_runtime.cudaSetDevice(cuda->device));
  if (c->side) (void)works(niti_cuda_runtime.cudaStreamSynchronize(c->side));
}

void niti_copies_leave(NitiCopies *c, NitiCuda *cuda, NitiRanks *ranks) {
  end_copies(c, cuda);
  niti_shared_leave(&c->inboxes, cuda, ranks);
  close_stream(c);
}

void niti_copies_drop(NitiCopies *c, NitiCuda *cuda) {
  end_copies(c, cuda);
  niti_shared_drop(&c->inboxes);
  close_stream(c);
}

/* ---- a step ---- */

/* What is enqueued from now on in `later` follows what is in `before`. */
static void follow(const NitiCopies *c, NitiCuda *cuda, cudaStream_t later, cudaStream_t before) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(c->reached, before), "recording an event");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamWaitEvent(later, c->reached, 0), "waiting for an event");
}

static int64_t *zero(const NitiCopies *c) {
  const NitiShared *s = &c->inboxes;
  return (int64_t *)(void *)((char *)s->of[s->rank] + (size_t)(s->ranks - 1) * c->bytes);
}

/* Whether b follows a in memory as it does in an inbox, so that one copy takes both. */
static bool adjoin(const NitiCopy *a, const NitiCopy *b) {
  return (uintptr_t)b->data - (uintptr_t)a->data == b->offset - a->offset;
}

static void copy_to_others(const NitiCopies *c, NitiCuda *cuda, const NitiCopy *first, size_t bytes) {
  const NitiShared *s = &c->inboxes;
  for (int to = 0; to < s->ranks; ++to) {
    if (to == s->rank) continue;
    niti_cuda_note(cuda,
                   niti_cuda_runtime.cudaMemcpyAsync(niti_copies_part(c, to, s->rank) + first->offset, first->data, bytes,
                                                     cudaMemcpyDeviceToDevice, c->side),
                   "copying gradients to other ranks");
  }
}

static void copy_begun(NitiCopies *c, NitiCuda *cuda) {
  if (c->copied == c->count) return;
  follow(c, cuda, c->side, cuda->stream);
  if (cuda->error != cudaSuccess) return; /* copies that follow nothing would overwrite what others still add */
  for (int i = c->copied, end; i < c->count; i = end) {
    for (end = i + 1; end < c->count && adjoin(&c->of[end - 1], &c->of[end]);) ++end;
    copy_to_others(c, cuda, &c->of[i], c->of[end - 1].offset + c->of[end - 1].bytes - c->of[i].offset);
  }
  c->copied = c->count;
  c->begun = true;
}

static bool are_words(const NitiCopies *c, const NitiSum *sum) {
  return c->words.count == 0 && sum->reduction == NITI_REDUCE_SUM_S64 && sum->count <= NITI_COPIES_WORDS;
}

bool niti_copies_begin(NitiCopies *c, NitiCuda *cuda, const NitiSum *sum) {
  const size_t bytes = niti_sum_bytes(sum->count, sum->reduction);
  if (!c->inboxes.open || sum->count == 0) return false;
  if (are_words(c, sum)) {
    c->words = *sum;
    return true;
  }
  if (c->count == NITI_COPIES_MOST || bytes > c->bytes - c->used || (uintptr_t)sum->data % NITI_COPIES_ALIGN != 0) return false;
  c->of[c->count++] = (NitiCopy){sum->data, c->used, bytes, sum->reduction == NITI_REDUCE_SUM_S64};
  c->used += round_up(bytes);
  if (c->used - c->of[c->copied].offset >= NITI_COPIES_LEAST) copy_begun(c, cuda);
  return true;
}

void niti_copies_wait(NitiCopies *c, NitiCuda *cuda) {
  const NitiShared *s = &c->inboxes;
  if (!niti_copies_pending(c)) return;
  copy_begun(c, cuda);
  if (c->begun) follow(c, cuda, cuda->stream, c->side);
  if (c->words.count > 0)
    niti_cuda_mailbox_promise(cuda, &cuda->peers->boxes, c->words.data, c->words.count);
  else
    niti_cuda_mailbox_promise(cuda, &cuda->peers->boxes, zero(c), 1);
  if (c->count > 0) niti_cuda_add_copies(cuda, c->of, c->count, s->of[s->rank], s->ranks - 1, c->bytes);
  niti_copies_forget(c);
}
