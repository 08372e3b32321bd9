/* Calls that stand for another library's, of which one fails: counted by each thread for itself. Include once in a program. */
#ifndef NITI_TESTS_FAIL_CALL_H
#define NITI_TESTS_FAIL_CALL_H

#include <stdbool.h>

#include "backend/cuda/runtime.h"

static _Thread_local int call_count, fail_at; /* the number of the call that fails, from 1; 0: none */
static _Thread_local const char *met;         /* its name, once it has failed */

static inline bool fails(const char *name) {
  if (++call_count != fail_at) return false;
  met = name;
  return true;
}

static inline cudaError_t meet(const char *name) { return fails(name) ? cudaErrorUnknown : cudaSuccess; }

#endif
