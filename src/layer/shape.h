/* Arithmetic of windows that slide over an image, shared by convolution and pooling. */
#ifndef NITI_LAYER_SHAPE_H
#define NITI_LAYER_SHAPE_H

#include "layer/layer.h"

/* The outputs along one side; fails where the window does not fit into the padded side ("height" or "width"). */
NitiStatus niti_window_count(int32_t *out, const char *side, int32_t size, int32_t kernel, int32_t stride, int32_t padding);
/* The same for both sides of a layer's kernel; sets out->h and out->w. */
NitiStatus niti_window_shape(const NitiLayerSpec *spec, NitiShape in, NitiShape *out);
/* Fails where a pool's padding is so large that windows could lie in it alone. */
NitiStatus niti_check_padding(const NitiLayerSpec *spec);
/* The window of a pooling layer; one without a kernel pools the whole image. */
NitiPool niti_pool_of(const NitiLayer *layer);

#endif
