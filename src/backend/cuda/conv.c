/* Convolution and linear: which family of kernels handles which shape. */
#include "backend/cuda/cuda.h"

typedef bool (*Serves)(const NitiConv *);

/* The device's own family where it handles the shape; mma.sync handles every shape in one group. */
static const NitiCudaConv *family_of(const NitiCuda *cuda, const NitiConv *s, Serves serves) {
  if (niti_conv_grouped(s)) return &niti_cuda_conv_grouped;
  const bool served = serves(s);
  return cuda->family == NITI_CUDA_WGMMA && served ? &niti_cuda_conv_wgmma : &niti_cuda_conv_mma;
}

size_t niti_cuda_conv_workspace(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCuda *cuda = niti_cuda_const(backend);
  if (niti_conv_grouped(&call->shape)) return niti_cuda_conv_grouped.workspace(cuda, &call->shape);
  const size_t mma = niti_cuda_conv_mma.workspace(cuda, &call->shape);
  if (cuda->family != NITI_CUDA_WGMMA) return mma;
  const size_t wgmma = niti_cuda_conv_wgmma.workspace(cuda, &call->shape);
  return wgmma > mma ? wgmma : mma;
}

const char *niti_cuda_conv_kernel(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiCudaConv *f = &niti_cuda_conv_wgmma;
  const Serves serves = call->direction == NITI_FORWARD    ? f->serves_forward
                        : call->direction == NITI_BACKWARD ? f->serves_backward
                                                           : f->serves_gradient;
  return family_of(niti_cuda_const(backend), &call->shape, serves)->name;
}

void niti_cuda_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w,
                            const NitiConvCall *call, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiConv *s = &call->shape;
  family_of(cuda, s, niti_cuda_conv_wgmma.serves_forward)->forward(cuda, y, x, w, s, call->relu, rq);
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
