/* Opens and lists backends by name. */
#include "backend/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/kernels.h"
#include "backend/registry.h"
#include "backend/tuning.h"
#include "base/size.h"
#include "program/bounds.h"
#include "program/places.h"

/* In the order in which "auto" prefers them. */
static const NitiBackendKind *const kinds[] = {
#ifdef NITI_CUDA
    &niti_backend_cuda,
#endif
    &niti_backend_cpu,
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static NitiStatus open_best(NitiBackend **out, const NitiBackendOptions *options) {
  NitiStatus status = NITI_ERROR_UNSUPPORTED;
  for (size_t i = 0; i < KINDS; ++i) {
    status = kinds[i]->open(out, options, NULL);
    if (status != NITI_ERROR_UNSUPPORTED) break; /* an invalid option is invalid for every backend */
  }
  return status;
}

void niti_backend_devices(NitiDeviceTold tell, void *context) {
  for (size_t i = 0; i < KINDS; ++i) kinds[i]->devices(tell, context);
}

static NitiStatus fail_unknown(const char *name) {
  char known[128] = "";
  size_t used = 0;
  for (size_t i = 0; i < KINDS && used < sizeof known; ++i) {
    const int n = snprintf(known + used, sizeof known - used, "%s, ", kinds[i]->name);
    used += n > 0 ? (size_t)n : 0;
  }
  return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%.64s\": not in this build of niti, expected %sor auto", name, known);
}

static NitiStatus open_named(NitiBackend **out, const NitiBackendOptions *options) {
  const char *name = options->name;
  if (!name || strcmp(name, "auto") == 0) return open_best(out, options);
  const size_t length = strcspn(name, ":");
  for (size_t i = 0; i < KINDS; ++i) {
    if (strlen(kinds[i]->name) != length || strncmp(kinds[i]->name, name, length) != 0) continue;
    return kinds[i]->open(out, options, name[length] == ':' ? name + length + 1 : NULL);
  }
  return fail_unknown(name);
}

NitiStatus niti_backend_open(NitiBackend **out, const NitiBackendOptions *options) {
  *out = NULL;
  NITI_TRY(open_named(out, options));
  const bool tuned = options->tuning && options->tuning[0] && !options->direct;
  const NitiStatus status = tuned ? niti_tuning_open(&(*out)->tuning, options->tuning, *out) : NITI_OK;
  if (status == NITI_OK) return NITI_OK;
  niti_backend_close(*out);
  *out = NULL;
  return status;
}

void niti_backend_close(NitiBackend *backend) {
  if (!backend) return;
  niti_tuning_close(backend->tuning);
  backend->ops->close(backend);
}

/* Whether all have names, no two the same. */
static bool are_apart(char (*names)[NITI_LINK_NAME_MAX], int count) {
  for (int i = 0; i < count; ++i) {
    if (!names[i][0]) return false;
    for (int k = 0; k < i; ++k) {
      if (strcmp(names[i], names[k]) == 0) return false;
    }
  }
  return true;
}

/* Whether the devices of all ranks can be connected more closely. */
static NitiStatus find_link(bool *can, NitiBackend *backend, NitiRanks *ranks) {
  const size_t size = (size_t)niti_ranks_size(ranks);
  char own[NITI_LINK_NAME_MAX] = "", (*names)[NITI_LINK_NAME_MAX] = calloc(size, sizeof *names);
  if (!names) return niti_fail(NITI_ERROR_MEMORY, "out of memory for %zu ranks", size);
  if (backend->kernels->link_name) backend->kernels->link_name(backend, own);
  const NitiStatus status = niti_ranks_gather(ranks, names, own, sizeof own);
  *can = status == NITI_OK && are_apart(names, (int)size);
  free(names);
  return status;
}

NitiStatus niti_backend_join(NitiBackend *backend, NitiRanks *ranks) {
  bool can = false;
  if (!ranks) return NITI_OK;
  NITI_TRY(find_link(&can, backend, ranks));
  if (!backend->kernels->all_sum_begin)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "the %s backend cannot train in several ranks (expected --backend cpu)",
                     backend->ops->name);
  backend->together.ranks = ranks;
  return can ? backend->kernels->connect(backend, ranks) : NITI_OK;
}

/* Of all sums of gradients; 0 where nothing is exchanged before the first of them begins. A loss's metrics travel with them. */
static size_t summed_bytes(const NitiProgram *program) {
  size_t bytes = 0;
  bool exchanged = false;
  for (int32_t i = 0; i < program->operation_count; ++i) {
    const NitiOperation *o = &program->operations[i];
    if (o->opcode != NITI_OP_ALL_SUM)
      exchanged = exchanged || (o->opcode != NITI_OP_LOSS && niti_exchanged_bytes(program, o) > 0);
    else if (exchanged)
      bytes += niti_round_up((size_t)niti_exchanged_bytes(program, o), NITI_ALIGN);
    else
      return 0;
  }
  return bytes;
}

NitiStatus niti_backend_reserve_sums(NitiBackend *backend, const NitiProgram *program) {
  if (!backend->together.ranks || !backend->kernels->reserve_sums) return NITI_OK;
  return backend->kernels->reserve_sums(backend, summed_bytes(program));
}

void niti_backend_leave(NitiBackend *backend) {
  if (backend && backend->together.ranks && backend->kernels->disconnect) backend->kernels->disconnect(backend);
}
