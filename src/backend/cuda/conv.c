/* Convolution and linear: which family of kernels handles which shape. */
#include "backend/cuda/cuda.h"

typedef bool (*Serves)(const NitiConv *);

/* The device's own family where it handles the shape; mma.sync handles every shape in one group. */
static const NitiCudaConv *family_of(const NitiCuda *cuda, const NitiConv *s, Serves serves) {
  if (niti_conv_grouped(s)) return &niti_cuda_conv_grouped;
  const bool served = serves(s);
  return cuda->family == NITI_CUDA_WGMMA && served ? &niti_cuda_conv_wgmma : &niti_cuda_conv_mma;
}

static size_t family_workspace(const NitiCuda *cuda, const NitiConv *s) {
  if (niti_conv_grouped(s)) return niti_cuda_conv_grouped.workspace(cuda, s);
  const size_t mma = niti_cuda_conv_mma.workspace(cuda, s);
  if (cuda->family != NITI_CUDA_WGMMA) return mma;
  const size_t wgmma = niti_cuda_conv_wgmma.workspace(cuda, s);
  return wgmma > mma ? wgmma : mma;
}

/* Where a bias is in the workspace: behind what the families use. */
static size_t bias_offset(const NitiCuda *cuda, const NitiConv *s) {
  return (family_workspace(cuda, s) + NITI_BLOCKED_ALIGN - 1) / NITI_BLOCKED_ALIGN * NITI_BLOCKED_ALIGN;
}

size_t niti_cuda_conv_workspace(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  if (call->direction != NITI_FORWARD) return family_workspace(cuda, &call->shape);
  return bias_offset(cuda, &call->shape) + niti_cuda_bias_bytes(call->shape.k);
}

const char *niti_cuda_conv_kernel(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCudaConv *f = &niti_cuda_conv_wgmma;
  const Serves serves = call->direction == NITI_FORWARD    ? f->serves_forward
                        : call->direction == NITI_BACKWARD ? f->serves_backward
                                                           : f->serves_gradient;
  return family_of(niti_cuda_const(backend), &call->shape, serves)->name;
}

void niti_cuda_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                            const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *s = &call->shape;
  int32_t *prepared = bias ? (int32_t *)(void *)(cuda->workspace + bias_offset(cuda, s)) : NULL;
  if (bias) niti_cuda_bias_prepare(cuda, prepared, bias, x, w, s->k, call->centred);
  family_of(cuda, s, niti_cuda_conv_wgmma.serves_forward)->forward(cuda, y, x, w, prepared, s, call->relu, rq);
}

void niti_cuda_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                             const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *s = &call->shape;
  family_of(cuda, s, niti_cuda_conv_wgmma.serves_backward)->backward(cuda, dx, dy, w, mask, s, rq);
}

void niti_cuda_conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                             const NitiConvCall *call) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *s = &call->shape;
  if (!niti_conv_grouped(s)) {
    niti_cuda_blocked_make(cuda, dy);
    niti_cuda_blocked_make(cuda, x);
  }
  family_of(cuda, s, niti_cuda_conv_wgmma.serves_gradient)->gradient(cuda, gradient, dy, x, s);
}
