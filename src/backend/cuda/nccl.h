/* Exchanges between ranks through NVIDIA's NCCL, in streams and so in recordings too. Without NCCL at build time niti_nccl_load
 * finds none, and nothing else here is called. */
#ifndef NITI_BACKEND_CUDA_NCCL_H
#define NITI_BACKEND_CUDA_NCCL_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/exchange.h"

/* NULL: NCCL is not there. */
NitiNccl *niti_nccl_load(void);
/* All work has ended. NULL is allowed. */
void niti_nccl_close(NitiNccl *);
/* All ranks call it, each with a device of its own, after cuda->sums has been chosen; they have exchanged something once it
 * returns, so that NCCL has made its connections. */
NitiStatus niti_nccl_connect(NitiCuda *, NitiRanks *, NitiNccl *);
/* In the backend's stream. */
void niti_nccl_reduce(NitiCuda *, void *data, size_t count, NitiReduction);
/* The same of several, as one launch where NCCL can. */
void niti_nccl_sum(NitiCuda *, const NitiSums *);
/* In a stream beside it: begins with what is enqueued by now, and niti_nccl_end_beside makes the backend's stream wait for all.
 */
void niti_nccl_begin_beside(NitiCuda *, void *data, size_t count, NitiReduction);
void niti_nccl_end_beside(NitiCuda *);

#endif
