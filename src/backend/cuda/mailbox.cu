/* Small exchanges between ranks by one block, through mailboxes in the memory of their devices (mailbox.h). */
#include "backend/cuda/device.cuh"
#include "backend/cuda/peers.h"

enum { THREADS = 1024, WARP = 32 };

/* All threads send all their elements before any waits. */
template <NitiReduction REDUCTION>
static __global__ void __launch_bounds__(THREADS) exchange_kernel(NitiMailboxes m, void *data, uint32_t count) {
  niti_kernel_begin();
  const uint32_t number = niti_mailbox_next(*m.number);
  __syncthreads(); /* all have read it */
  if (threadIdx.x == 0) *m.number = number;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) niti_mailbox_put(&m, number, data, count, i, REDUCTION);
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    while (!niti_mailbox_take(&m, number, data, count, i, REDUCTION)) {
    }
  }
}

extern "C" void niti_cuda_mailbox_exchange(NitiCuda *cuda, const NitiMailboxes *m, void *data, size_t count,
                                           NitiReduction reduction) {
  const unsigned wanted = ((unsigned)count + WARP - 1) / WARP * WARP, threads = wanted < THREADS ? wanted : (unsigned)THREADS;
  if (reduction == NITI_REDUCE_MAX_U32)
    NITI_LAUNCH(cuda, exchange_kernel<NITI_REDUCE_MAX_U32>, 1, threads, 0, *m, data, (uint32_t)count);
  else
    NITI_LAUNCH(cuda, exchange_kernel<NITI_REDUCE_SUM_S64>, 1, threads, 0, *m, data, (uint32_t)count);
}
