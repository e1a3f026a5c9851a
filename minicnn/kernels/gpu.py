"""The GPU room: the doors of the CPU room as CUDA kernels, through CuPy.

Arrays are NHWC and contiguous, as in the CPU room. Every matrix product of the network, of convolutions, of dense
layers and of their gradients, is one function of the CUDA text below, `product`; what differs is how an element of
the two factors is found. The column matrix of im2col is one of them: its elements are read from the image and it is
never stored. A dense layer is a convolution whose images have one pixel.

A thread block computes a tile of 64 rows by 16, 32 or 64 columns and walks along the inner axis 16 at a time:

    left (M, K)  64x16 --+                  each of 256 threads keeps 4 rows by 1, 2 or 4 columns of sums in registers;
                         +-- shared memory  the 4 rows are the 4 pixels of a pooling window, where one follows, so that
    right (K, N) 16xN  --+                  the thread that has the sums also has their maximum

Where the result is small and K long, as in dw, K is cut into parts that are summed afterwards, in a fixed order. There
are no atomics: the same inputs give the same bits.
"""

import functools
import math
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cupy
import cupyx
import numpy as np

from minicnn.errors import DeviceMemoryError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Arrays = Sequence[Any]

ROWS, DEPTH, THREADS = 64, 16, 256  # of a tile, as in the text below
BLOCKS = 256  # thread blocks that a product wants: fixed, and not the card's number, so that all cards sum alike
RECORDINGS = 8  # steps that a model keeps as graphs: for a full and a last batch, at a few learning rates
SQUARES = 1024  # parts of a sum of squares
GROUP = 16  # arrays that one launch updates

CUDA = r"""
typedef long long wide;  // offsets: a card holds more numbers than an int can count

struct Sizes { int N, H, W, C, F, KH, KW, SH, SW, top, left, OH, OW; };

// A place (a, b, c) in three nested loops of which the last is the fastest; b < B, c < C.
struct Place {
    int a, b, c, B, C;
    __device__ Place(wide at, int B, int C) : a(at / C / B), b(at / C % B), c(at % C), B(B), C(C) {}
    __device__ void advance(int steps) {
        for (c += steps; c >= C; c -= C)
            if (++b == B) { b = 0; ++a; }
    }
};

// Window m of a convolution; pooled, windows come in fours that one pooling window covers, row by row.
__device__ inline Place window(wide m, const Sizes& s, bool pooled) {
    if (!pooled) return Place(m, s.OH, s.OW);
    Place four(m / 4, s.OH / 2, s.OW / 2);
    Place one(0, s.OH, s.OW);
    one.a = four.a; one.b = 2 * four.b + m % 4 / 2; one.c = 2 * four.c + m % 2;
    return one;
}

// x[n,h,w,c], or 0 outside the image.
__device__ inline real pixel(const real* x, const Sizes& s, int n, int h, int w, int c) {
    return 0 <= h && h < s.H && 0 <= w && w < s.W ? x[((wide(n) * s.H + h) * s.W + w) * s.C + c] : real(0);
}

// dz[n,i,j,f]: dy itself, or, with argmax, dy of the pooling window if (i, j) won it.
struct Gradient {
    const real* dy; const unsigned char* argmax;
    __device__ real at(const Sizes& s, int n, int i, int j, int f) const {
        if (!argmax) return dy[((wide(n) * s.OH + i) * s.OW + j) * s.F + f];
        wide q = ((wide(n) * (s.OH / 2) + i / 2) * (s.OW / 2) + j / 2) * s.F + f;
        return argmax[q] == i % 2 * 2 + j % 2 ? dy[q] : real(0);
    }
};

// The factors of the products. `line` is what a thread needs of its row of the left one, or its column of the right
// one; `depth` is its place on the inner axis. Neighbouring threads take neighbours along the inner axis, or, ACROSS,
// along the other: whichever lie side by side in memory.

struct Windows {  // cols (N*OH*OW, KH*KW*C)
    static const bool ACROSS = false;
    const real* x; Sizes s; bool pooled;
    struct Line { int n, h, w; };
    __device__ Line line(wide m) const {
        Place p = window(m, s, pooled);
        return {p.a, p.b * s.SH - s.top, p.c * s.SW - s.left};
    }
    __device__ Place depth(wide k) const { return Place(k, s.KW, s.C); }
    __device__ real at(const Line& p, const Place& k) const { return pixel(x, s, p.n, p.h + k.a, p.w + k.b, k.c); }
};

struct Filters {  // w (KH*KW*C, F)
    static const bool ACROSS = true;
    const real* w; Sizes s;
    typedef int Line;
    __device__ Line line(wide f) const { return f; }
    __device__ Place depth(wide k) const { return Place(k, 1, 1 << 30); }
    __device__ real at(Line f, const Place& k) const { return w[wide(k.c) * s.F + f]; }
};

struct Gradients {  // dz (N*H*W, KH*KW*F): for each pixel, the windows that it lies in
    static const bool ACROSS = false;
    Gradient dz; Sizes s;
    struct Line { int n, h, w; };
    __device__ Line line(wide m) const { Place p(m, s.H, s.W); return {p.a, p.b + s.top, p.c + s.left}; }
    __device__ Place depth(wide k) const { return Place(k, s.KW, s.F); }
    __device__ real at(const Line& p, const Place& k) const {
        int h = p.h - k.a, w = p.w - k.b;  // h = i * SH for the window i that has the pixel at k.a
        if (h < 0 || w < 0 || h % s.SH || w % s.SW || h / s.SH >= s.OH || w / s.SW >= s.OW) return real(0);
        return dz.at(s, p.n, h / s.SH, w / s.SW, k.c);
    }
};

struct TurnedFilters {  // w (KH*KW*F, C)
    static const bool ACROSS = false;
    const real* w; Sizes s;
    typedef int Line;
    __device__ Line line(wide c) const { return c; }
    __device__ Place depth(wide k) const { return Place(k, s.KW, s.F); }
    __device__ real at(Line c, const Place& k) const { return w[((k.a * s.KW + k.b) * wide(s.C) + c) * s.F + k.c]; }
};

struct Columns {  // cols transposed (KH*KW*C + 1, N*OH*OW): the last row is ones, since a bias is a weight of 1
    static const bool ACROSS = true;
    const real* x; Sizes s;
    struct Line { int u, v, c; };
    __device__ Line line(wide q) const { Place p(q, s.KW, s.C); return {p.a, p.b, p.c}; }
    __device__ Place depth(wide m) const { return Place(m, s.OH, s.OW); }
    __device__ real at(const Line& q, const Place& m) const {
        if (q.u == s.KH) return real(1);
        return pixel(x, s, m.a, m.b * s.SH - s.top + q.u, m.c * s.SW - s.left + q.v, q.c);
    }
};

struct Sums {  // dz (N*OH*OW, F)
    static const bool ACROSS = true;
    Gradient dz; Sizes s;
    typedef int Line;
    __device__ Line line(wide f) const { return f; }
    __device__ Place depth(wide m) const { return Place(m, s.OH, s.OW); }
    __device__ real at(Line f, const Place& m) const { return dz.at(s, m.a, m.b, m.c, f); }
};

// Compute a tile of left (M, K) @ right (K, N): give store(m, n, sums) the 4 sums of the rows m to m + 3.
// The block's z chooses a part of K, from first to last.
template <int COLS, class Left, class Right, class Store>
__device__ void product(const Left& left, const Right& right, wide M, int N, wide K, const Store& store) {
    __shared__ real a[16][64 + 1], b[16][16 * COLS + 1];  // one more: columns of a tile lie in different banks
    const int t = threadIdx.x, low = t % 16, high = t / 16;
    const int a_depth = Left::ACROSS ? high : low, a_lane = Left::ACROSS ? low : high;
    const int b_depth = Right::ACROSS ? high : low, b_lane = Right::ACROSS ? low : high;
    const wide m0 = wide(blockIdx.x) * 64, part = (K + gridDim.z - 1) / gridDim.z;
    const int n0 = blockIdx.y * 16 * COLS;
    const wide first = blockIdx.z * part, last = first + part < K ? first + part : K;
    typename Left::Line a_lines[4];
    typename Right::Line b_lines[COLS];
    for (int r = 0; r < 4; ++r) a_lines[r] = left.line(m0 + a_lane + 16 * r);
    for (int r = 0; r < COLS; ++r) b_lines[r] = right.line(n0 + b_lane + 16 * r);
    Place a_at = left.depth(first + a_depth), b_at = right.depth(first + b_depth);
    real sums[COLS][4] = {};
    for (wide k = first; k < last; k += 16) {
        for (int r = 0; r < 4; ++r) {
            bool inside = m0 + a_lane + 16 * r < M && k + a_depth < last;
            a[a_depth][a_lane + 16 * r] = inside ? left.at(a_lines[r], a_at) : real(0);
        }
        for (int r = 0; r < COLS; ++r) {
            bool inside = n0 + b_lane + 16 * r < N && k + b_depth < last;
            b[b_depth][b_lane + 16 * r] = inside ? right.at(b_lines[r], b_at) : real(0);
        }
        a_at.advance(16);
        b_at.advance(16);
        __syncthreads();
        for (int d = 0; d < 16; ++d)
            for (int c = 0; c < COLS; ++c)
                for (int r = 0; r < 4; ++r) sums[c][r] += a[d][4 * high + r] * b[d][low + 16 * c];
        __syncthreads();
    }
    for (int c = 0; c < COLS; ++c)
        if (m0 + 4 * high < M && n0 + low + 16 * c < N) store(m0 + 4 * high, n0 + low + 16 * c, sums[c]);
}

// Write the sums, with the bias if there is one, where the part of K has its own array (M, N).
struct Plain {
    real* y; const real* b; wide M; int N;
    __device__ void operator()(wide m, int n, const real* sums) const {
        for (int r = 0; r < 4 && m + r < M; ++r)
            y[(blockIdx.z * M + m + r) * N + n] = b && gridDim.z == 1 ? sums[r] + b[n] : sums[r];
    }
};

// Write ReLU of the largest of the 4 sums, and which it was; 4 where it is not above 0. The first NaN wins.
struct Pooled {
    real* y; unsigned char* argmax; const real* b; int N;
    __device__ void operator()(wide m, int n, const real* sums) const {
        real best = sums[0] + b[n];
        int place = 0;
        for (int r = 1; r < 4; ++r) {
            real z = sums[r] + b[n];
            if (z > best || (z != z && best == best)) { best = z; place = r; }
        }
        y[m / 4 * N + n] = best < 0 ? real(0) : best;
        argmax[m / 4 * N + n] = best > 0 ? place : 4;
    }
};

template <int COLS> __device__ void correlate(const real* x, const real* w, const real* b, real* y, const Sizes& s) {
    wide M = wide(s.N) * s.OH * s.OW;
    product<COLS>(Windows{x, s, false}, Filters{w, s}, M, s.F, wide(s.KH) * s.KW * s.C, Plain{y, b, M, s.F});
}

template <int COLS> __device__ void correlate_pool(const real* x, const real* w, const real* b, real* y,
                                                   unsigned char* argmax, const Sizes& s) {
    wide M = wide(s.N) * s.OH * s.OW;
    product<COLS>(Windows{x, s, true}, Filters{w, s}, M, s.F, wide(s.KH) * s.KW * s.C, Pooled{y, argmax, b, s.F});
}

template <int COLS> __device__ void weight_gradient(const real* x, const real* dy, const unsigned char* argmax,
                                                    real* dw, const Sizes& s) {
    wide M = wide(s.KH) * s.KW * s.C + 1;
    product<COLS>(Columns{x, s}, Sums{{dy, argmax}, s}, M, s.F, wide(s.N) * s.OH * s.OW, Plain{dw, 0, M, s.F});
}

template <int COLS> __device__ void input_gradient(const real* dy, const unsigned char* argmax, const real* w, real* dx,
                                                   const Sizes& s) {
    wide M = wide(s.N) * s.H * s.W;
    product<COLS>(Gradients{{dy, argmax}, s}, TurnedFilters{w, s}, M, s.C, wide(s.KH) * s.KW * s.F,
                  Plain{dx, 0, M, s.C});
}

#define PRODUCTS(COLS) \
extern "C" __global__ void correlate_##COLS(const real* x, const real* w, const real* b, real* y, Sizes s) { \
    correlate<COLS>(x, w, b, y, s); } \
extern "C" __global__ void correlate_pool_##COLS(const real* x, const real* w, const real* b, real* y, \
                                                 unsigned char* argmax, Sizes s) { \
    correlate_pool<COLS>(x, w, b, y, argmax, s); } \
extern "C" __global__ void weight_gradient_##COLS(const real* x, const real* dy, const unsigned char* argmax, \
                                                  real* dw, Sizes s) { \
    weight_gradient<COLS>(x, dy, argmax, dw, s); } \
extern "C" __global__ void input_gradient_##COLS(const real* dy, const unsigned char* argmax, const real* w, \
                                                 real* dx, Sizes s) { \
    input_gradient<COLS>(dy, argmax, w, dx, s); }

PRODUCTS(1)
PRODUCTS(2)
PRODUCTS(4)

// What each of the kernels below does for the thread's element i of `size`.
#define EACH(size) \
    const wide i = wide(blockIdx.x) * blockDim.x + threadIdx.x; \
    if (i >= (size)) return;

extern "C" __global__ void add_parts(const real* parts, const real* b, real* y, wide size, int N, int count) {
    EACH(size)
    real sum = 0;
    for (int part = 0; part < count; ++part) sum += parts[part * size + i];
    y[i] = b ? sum + b[i % N] : sum;
}

extern "C" __global__ void im2col(const real* x, real* cols, Sizes s) {
    const wide K = wide(s.KH) * s.KW * s.C;
    EACH(wide(s.N) * s.OH * s.OW * K)
    Windows windows = {x, s, false};
    cols[i] = windows.at(windows.line(i / K), windows.depth(i % K));
}

extern "C" __global__ void col2im(const real* cols, real* x, Sizes s) {
    EACH(wide(s.N) * s.H * s.W * s.C)
    const int c = i % s.C;
    Place p(i / s.C, s.H, s.W);
    real sum = 0;
    for (int u = 0; u < s.KH; ++u)
        for (int v = 0; v < s.KW; ++v) {
            int h = p.b + s.top - u, w = p.c + s.left - v;
            if (h < 0 || w < 0 || h % s.SH || w % s.SW || h / s.SH >= s.OH || w / s.SW >= s.OW) continue;
            wide row = (wide(p.a) * s.OH + h / s.SH) * s.OW + w / s.SW;
            sum += cols[row * s.KH * s.KW * s.C + (u * s.KW + v) * s.C + c];
        }
    x[i] = sum;
}

extern "C" __global__ void maxpool(const real* x, real* y, int* argmax, Sizes s) {
    EACH(wide(s.N) * s.OH * s.OW * s.C)
    const int c = i % s.C;
    Place p(i / s.C, s.OH, s.OW);
    real best = 0;
    int place = -1;
    for (int u = 0; u < s.KH; ++u)
        for (int v = 0; v < s.KW; ++v) {
            int h = p.b * s.SH - s.top + u, w = p.c * s.SW - s.left + v;
            if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
            real value = x[((wide(p.a) * s.H + h) * s.W + w) * s.C + c];
            if (place < 0 || value > best || (value != value && best == best)) { best = value; place = u * s.KW + v; }
        }
    y[i] = best;
    argmax[i] = place;
}

extern "C" __global__ void maxpool_backward(const real* dy, const int* argmax, real* dx, Sizes s) {
    EACH(wide(s.N) * s.H * s.W * s.C)
    const int c = i % s.C;
    Place p(i / s.C, s.H, s.W);
    real sum = 0;
    for (int u = s.KH - 1; u >= 0; --u)  // backwards, so that windows come in their order
        for (int v = s.KW - 1; v >= 0; --v) {
            int h = p.b + s.top - u, w = p.c + s.left - v;
            if (h < 0 || w < 0 || h % s.SH || w % s.SW || h / s.SH >= s.OH || w / s.SW >= s.OW) continue;
            wide q = ((wide(p.a) * s.OH + h / s.SH) * s.OW + w / s.SW) * s.C + c;
            if (argmax[q] == u * s.KW + v) sum += dy[q];
        }
    dx[i] = sum;
}

// How many pixels of the window (i, j) are inside the image.
__device__ inline int covered(const Sizes& s, int i, int j) {
    const int h = i * s.SH - s.top, w = j * s.SW - s.left;
    return (min(h + s.KH, s.H) - max(h, 0)) * (min(w + s.KW, s.W) - max(w, 0));
}

extern "C" __global__ void averagepool(const real* x, real* y, Sizes s) {
    EACH(wide(s.N) * s.OH * s.OW * s.C)
    const int c = i % s.C;
    Place p(i / s.C, s.OH, s.OW);
    real sum = 0;
    for (int u = 0; u < s.KH; ++u)
        for (int v = 0; v < s.KW; ++v) sum += pixel(x, s, p.a, p.b * s.SH - s.top + u, p.c * s.SW - s.left + v, c);
    y[i] = sum / covered(s, p.b, p.c);
}

extern "C" __global__ void averagepool_backward(const real* dy, real* dx, Sizes s) {
    EACH(wide(s.N) * s.H * s.W * s.C)
    const int c = i % s.C;
    Place p(i / s.C, s.H, s.W);
    const int h = p.b + s.top, w = p.c + s.left;  // in windows (r, q) with r * SH <= h < r * SH + KH, and q alike
    real sum = 0;
    for (int r = h < s.KH ? 0 : (h - s.KH) / s.SH + 1; r < s.OH && r * s.SH <= h; ++r)
        for (int q = w < s.KW ? 0 : (w - s.KW) / s.SW + 1; q < s.OW && q * s.SW <= w; ++q)
            sum += dy[((wide(p.a) * s.OH + r) * s.OW + q) * s.C + c] / covered(s, r, q);
    dx[i] = sum;
}

extern "C" __global__ void rescale_bytes(const unsigned char* x, real* y, real scale, real offset, wide size) {
    EACH(size)
    y[i] = real(x[i]) * scale + offset;
}

extern "C" __global__ void rescale(const real* x, real* y, real scale, real offset, wide size) {
    EACH(size)
    y[i] = x[i] * scale + offset;
}

extern "C" __global__ void relu(const real* x, real* y, wide size) {
    EACH(size)
    y[i] = x[i] < 0 ? real(0) : x[i];
}

extern "C" __global__ void relu_backward(const real* dy, const real* y, real* dx, wide size) {
    EACH(size)
    dx[i] = y[i] > 0 ? dy[i] : real(0);
}

extern "C" __global__ void leaky_relu(const real* x, real* y, real slope, wide size) {
    EACH(size)
    y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

extern "C" __global__ void leaky_relu_backward(const real* dy, const real* y, real* dx, real slope, wide size) {
    EACH(size)
    dx[i] = y[i] > 0 ? dy[i] : slope * dy[i];
}

// P(Z < x) of a normal variable Z.
__device__ inline real below(real x) { return real(0.5) * erfc(-real(0.70710678118654752) * x); }

extern "C" __global__ void gelu(const real* x, real* y, wide size) {
    EACH(size)
    y[i] = x[i] * below(x[i]);
}

extern "C" __global__ void gelu_backward(const real* dy, const real* x, real* dx, wide size) {
    EACH(size)
    const real density = real(0.39894228040143268) * exp(-real(0.5) * x[i] * x[i]);
    dx[i] = dy[i] * (below(x[i]) + x[i] * density);
}

// A thread a row: classes are few.

__device__ inline real largest(const real* z, int K) {
    real peak = z[0];
    for (int k = 1; k < K; ++k) peak = z[k] > peak || z[k] != z[k] ? z[k] : peak;
    return peak;
}

extern "C" __global__ void softmax(const real* z, real* p, wide rows, int K) {
    EACH(rows)
    z += i * K; p += i * K;
    const real peak = largest(z, K);
    real total = 0;
    for (int k = 0; k < K; ++k) total += p[k] = exp(z[k] - peak);
    for (int k = 0; k < K; ++k) p[k] /= total;
}

extern "C" __global__ void softmax_backward(const real* dy, const real* p, real* dz, wide rows, int K) {
    EACH(rows)
    dy += i * K; p += i * K; dz += i * K;
    real mean = 0;
    for (int k = 0; k < K; ++k) mean += dy[k] * p[k];
    for (int k = 0; k < K; ++k) dz[k] = p[k] * (dy[k] - mean);
}

extern "C" __global__ void softmax_crossentropy(const real* z, const wide* labels, real* losses, real* dz, wide rows,
                                                int K, real own, real share) {
    EACH(rows)
    z += i * K; dz += i * K;
    const real peak = largest(z, K);
    real total = 0;
    for (int k = 0; k < K; ++k) total += dz[k] = exp(z[k] - peak);
    losses[i] = log(total) - own * (z[labels[i]] - peak);
    for (int k = 0; share && k < K; ++k) losses[i] -= share * (z[k] - peak);
    for (int k = 0; k < K; ++k) dz[k] = (dz[k] / total - share - (k == labels[i]) * own) / rows;
}

// A thread a channel of a part of the rows: neighbours read neighbours. sums (parts, 2, C), in double precision.

// The sums of d and d * d, d = x - origin; with dy, of dy and dy * d.
extern "C" __global__ void channel_sums(const real* x, const real* dy, const double* origin, double* sums, wide rows,
                                        int C, int parts) {
    EACH(wide(parts) * C)
    const int c = i % C, part = i / C;
    double first = 0, second = 0;
    for (wide r = rows * part / parts; r < rows * (part + 1) / parts; ++r) {
        const double d = double(x[r * C + c]) - origin[c], factor = dy ? double(dy[r * C + c]) : d;
        first += factor;
        second += factor * d;
    }
    sums[(wide(part) * 2) * C + c] = first;
    sums[(wide(part) * 2 + 1) * C + c] = second;
}

extern "C" __global__ void add_channel_sums(const double* parts, double* total, int size, int count) {
    EACH(size)
    double sum = 0;
    for (int part = 0; part < count; ++part) sum += parts[wide(part) * size + i];
    total[i] = sum;
}

extern "C" __global__ void normalize(const real* x, const real* mean, const real* scale, const real* shift, real* y,
                                     wide size, int C) {
    EACH(size)
    const int c = i % C;
    y[i] = (x[i] - mean[c]) * scale[c] + shift[c];
}

extern "C" __global__ void normalize_backward(const real* dy, const real* x, const real* mean, const real* a,
                                              const real* b, const real* c, real* dx, wide size, int C) {
    EACH(size)
    const int k = i % C;
    dx[i] = dy[i] * a[k] + (x[i] - mean[k]) * b[k] + c[k];
}

extern "C" __global__ void dropout(const real* x, const bool* kept, real* y, real scale, wide size) {
    EACH(size)
    y[i] = kept[i] ? x[i] * scale : real(0);
}

// Copy rows of x, each `width` long, into longer rows of y, from `start` on.
extern "C" __global__ void place(const real* x, real* y, wide start, wide width, wide whole, wide size) {
    EACH(size)
    y[i / width * whole + start + i % width] = x[i];
}

// A thread an element of bytes or floats, which are moved and not computed with.

template <class T> __device__ void gather(const T* x, const int* rows, const int* cols, T* y, int H, int W, int C,
                                          int OH, int OW, wide i) {
    const Place p(i / C, OH, OW);
    const int h = rows[wide(p.a) * OH + p.b], w = cols[wide(p.a) * OW + p.c];
    y[i] = h < 0 || w < 0 ? T(0) : x[((wide(p.a) * H + h) * W + w) * C + i % C];
}

extern "C" __global__ void gather_pixels(const real* x, const int* rows, const int* cols, real* y, wide size, int H,
                                         int W, int C, int OH, int OW) {
    EACH(size)
    gather(x, rows, cols, y, H, W, C, OH, OW, i);
}

extern "C" __global__ void gather_bytes(const unsigned char* x, const int* rows, const int* cols, unsigned char* y,
                                        wide size, int H, int W, int C, int OH, int OW) {
    EACH(size)
    gather(x, rows, cols, y, H, W, C, OH, OW, i);
}

extern "C" __global__ void gather_pixels_backward(const real* dy, const int* rows, const int* cols, real* dx, wide size,
                                                  int H, int W, int C, int OH, int OW) {
    EACH(size)
    const Place p(i / C, H, W);
    rows += wide(p.a) * OH; cols += wide(p.a) * OW;
    real sum = 0;
    for (int u = 0; u < OH; ++u)
        for (int v = 0; rows[u] == p.b && v < OW; ++v)
            if (cols[v] == p.c) sum += dy[((wide(p.a) * OH + u) * OW + v) * C + i % C];
    dx[i] = sum;
}

template <class T> __device__ void cover(const T* x, const int* boxes, T* y, T value, int H, int W, int C, wide i) {
    const Place p(i / C, H, W);
    const int* box = boxes + 4 * wide(p.a);
    y[i] = box[0] <= p.b && p.b < box[1] && box[2] <= p.c && p.c < box[3] ? value : x[i];
}

extern "C" __global__ void cutout(const real* x, const int* boxes, real* y, real value, wide size, int H, int W,
                                  int C) {
    EACH(size)
    cover(x, boxes, y, value, H, W, C, i);
}

extern "C" __global__ void cutout_bytes(const unsigned char* x, const int* boxes, unsigned char* y,
                                        unsigned char value, wide size, int H, int W, int C) {
    EACH(size)
    cover(x, boxes, y, value, H, W, C, i);
}

// Of each part of x, column k of sums (parts, arrays), in double precision.
extern "C" __global__ void square_sums(const real* x, double* sums, wide size, int k, int arrays, int parts) {
    EACH(parts)
    double sum = 0;
    for (wide at = i; at < size; at += parts) sum += double(x[at]) * x[at];
    sums[i * arrays + k] = sum;
}

// Arrays of weights one behind the other: array t ends before the element ends[t] of all. `first` and `second` are what
// the optimizer keeps for each.
struct Group { real* w[16]; const real* dw[16]; real* first[16]; real* second[16]; wide ends[16]; };

// What each of the updates below does for the thread's weight w, number `at` of array t.
#define EACH_WEIGHT \
    EACH(size) \
    int t = 0; \
    while (i >= g.ends[t]) ++t; \
    const wide at = t ? i - g.ends[t - 1] : i; \
    real& w = g.w[t][at];

extern "C" __global__ void decay(Group g, wide size, real rate) {
    EACH_WEIGHT
    w -= rate * w;
}

extern "C" __global__ void sgd(Group g, wide size, real rate, real momentum, real nesterov) {
    EACH_WEIGHT
    const real step = rate * g.dw[t][at], velocity = momentum * g.first[t][at] - step;
    g.first[t][at] = velocity;
    w += nesterov ? momentum * velocity - step : velocity;
}

extern "C" __global__ void rmsprop(Group g, wide size, real rate, real rho, real rest, real epsilon) {
    EACH_WEIGHT
    const real dw = g.dw[t][at], square = rho * g.first[t][at] + rest * (dw * dw);
    g.first[t][at] = square;
    w -= rate * dw / sqrt(square + epsilon);
}

extern "C" __global__ void adam(Group g, wide size, real rate, real rest_1, real rest_2, real epsilon) {
    EACH_WEIGHT
    const real dw = g.dw[t][at];
    real &mean = g.first[t][at], &square = g.second[t][at];
    mean += rest_1 * (dw - mean);
    square += rest_2 * (dw * dw - square);
    w -= rate * mean / (sqrt(square) + epsilon);
}
"""

SIZES = np.dtype(",".join(["i4"] * 13))
SIZES.names = ("N", "H", "W", "C", "F", "KH", "KW", "SH", "SW", "top", "left", "OH", "OW")
GROUPED = np.dtype([(name, np.int64, GROUP) for name in ("w", "dw", "first", "second", "ends")])  # 64-bit pointers


_recordings: Any = weakref.WeakKeyDictionary()


def on_device(array: Any) -> Any:
    """Return the array (...) in the card's memory: itself, if it is there already."""
    if isinstance(array, cupy.ndarray):
        return array
    array = np.asarray(array)
    return _reserve(array.nbytes, lambda: cupy.asarray(array))


def complaint() -> str | None:
    """Return why this card or its driver cannot run the kernels, in one line, or None if they run."""
    try:
        with cupy.cuda.Device():
            ran = relu(cupy.asarray(np.array([-1, 2], np.float32))).get().tolist()
    except Exception as error:  # CuPy, the compiler and the driver each have kinds of their own
        return f"the GPU does not run minicnn's kernels: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None if ran == [0, 2] else f"the GPU computes wrong numbers: ReLU of [-1, 2] is {ran}. Use the CPU."


def run_step(step: Callable[..., Any], owner: Any, describe: Callable[[], Any], *arrays: Any) -> Any:
    """Return ``step(*arrays)``; a step that comes again, and does the same, is recorded once and then replayed.

    A small step takes longer to launch, kernel by kernel, than to compute; a CUDA graph is launched at once. It has
    fixed addresses and numbers: `describe` returns what they follow from, and a change makes a new graph. What a
    replay returns is valid until the next.
    """
    described = describe()
    if described is None:
        return step(*map(on_device, arrays))
    settings, held = described
    shapes = tuple((array.shape, array.dtype.str) for array in arrays)
    key = (settings, shapes, tuple(array.data.ptr if isinstance(array, cupy.ndarray) else 0 for array in held))
    recordings = _recordings.setdefault(owner, {})
    if key not in recordings:  # at first as it comes: kernels are compiled and velocities made on the way
        while len(recordings) >= RECORDINGS:
            del recordings[next(iter(recordings))]
        recordings[key] = None
        return step(*map(on_device, arrays))
    if recordings[key] is None:
        try:
            recordings[key] = Recording(step, arrays)
        except Exception as error:  # while recording nothing is computed, so the weights are what they were
            print(f"a step is not recorded, but runs kernel by kernel, which is slower: {error}", file=sys.stderr)
            recordings[key] = False
    return recordings[key].replay(arrays) if recordings[key] else step(*map(on_device, arrays))


class Recording:
    """A step as a CUDA graph, with the memory that it uses."""

    def __init__(self, step: Callable[..., Any], arrays: Sequence[Any]) -> None:
        self.inputs = [cupy.array(on_device(array)) for array in arrays]
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.pool = cupy.cuda.MemoryPool()  # its memory is written by every replay: nobody else may get it
        _wait(self.stream, cupy.cuda.get_current_stream())
        with cupy.cuda.using_allocator(self.pool.malloc), self.stream:
            self.stream.begin_capture()
            try:
                self.outputs = step(*self.inputs)
            finally:
                self.graph = self.stream.end_capture()

    def replay(self, arrays: Sequence[Any]) -> Any:
        """Return the step's result for these arrays."""
        for own, array in zip(self.inputs, arrays, strict=True):
            own[...] = on_device(array)
        current = cupy.cuda.get_current_stream()
        _wait(self.stream, current)
        self.graph.launch(self.stream)
        _wait(current, self.stream)
        return self.outputs


def ahead(batches: Iterator) -> Iterator:
    """Give the batches with their images on the card: each travels while the one before is computed with."""
    copies, slots, waiting = cupy.cuda.Stream(non_blocking=True), (_Slot(), _Slot()), None
    for number, (images, labels) in enumerate(batches):
        following = (slots[number % 2].send(images, copies) if isinstance(images, np.ndarray) else images), labels
        if waiting is not None:
            yield waiting
        _wait(cupy.cuda.get_current_stream(), copies)
        waiting = following
    if waiting is not None:
        yield waiting


class _Slot:
    """Memory for a batch on its way: pinned on the host, so that the card fetches it by itself, and on the card."""

    shape: Any = None
    dtype: Any = None
    sent: Any = None

    def send(self, images: np.ndarray, copies: Any) -> Any:
        """Begin to copy; return the images on the card."""
        if self.sent is not None:
            self.sent.synchronize()  # two batches ago: the pinned memory is free
        if (images.shape, images.dtype) != (self.shape, self.dtype):
            self.shape, self.dtype = images.shape, images.dtype
            self.pinned = cupyx.empty_pinned(images.shape, images.dtype)
            self.images = _empty(images.shape, images.dtype)
        np.copyto(self.pinned, images)
        _wait(copies, cupy.cuda.get_current_stream())  # what was computed with the batch before the last
        self.images.set(self.pinned, stream=copies)
        self.sent = copies.record()
        return self.images


def _wait(waiting: Any, other: Any) -> None:
    """Let a stream go on when what another has been given is done; the host does not wait."""
    waiting.wait_event(other.record())


def im2col(x: Any, kernel_size: Pair, strides: Pair, pads: Pads) -> Any:
    """Lay every window of x (N, H, W, C) out as a row: cols (N*OH*OW, KH*KW*C), zeros where it meets the padding."""
    sizes = _sizes(x.shape, kernel_size, 0, strides, pads)
    rows = x.shape[0] * int(sizes["OH"][0]) * int(sizes["OW"][0])
    cols = _empty((rows, math.prod(kernel_size) * x.shape[3]), x.dtype)
    _each("im2col", cols.size, x.dtype, _whole(x), cols, sizes)
    return cols  # (N*OH*OW, KH*KW*C)


def col2im(cols: Any, x_shape: tuple, kernel_size: Pair, strides: Pair, pads: Pads) -> Any:
    """Add every row of cols (N*OH*OW, KH*KW*C) back to where im2col read it: x (N, H, W, C), im2col's transpose."""
    x = _empty(x_shape, cols.dtype)
    _each("col2im", x.size, cols.dtype, _whole(cols), x, _sizes(x_shape, kernel_size, 0, strides, pads))
    return x  # (N, H, W, C)


def conv2d(x: Any, w: Any, b: Any, strides: Pair, pads: Pads) -> Any:
    """Correlate x (N, H, W, C) with w (KH, KW, C, F) and add b (F,): y (N, OH, OW, F)."""
    return _correlate(x, w, b, _sizes(x.shape, w.shape[:2], w.shape[3], strides, pads))


def conv2d_backward(
    dy: Any, x: Any, w: Any, strides: Pair, pads: Pads, input_gradient: bool = True
) -> tuple[Any | None, Any, Any]:
    """Return dx or None, dw and db, the sums over all windows.

    dy (N, OH, OW, F), x and dx (N, H, W, C), w and dw (KH, KW, C, F), db (F,).
    """
    return _gradients(dy, None, x, w, _sizes(x.shape, w.shape[:2], w.shape[3], strides, pads), input_gradient)


def maxpool2d(x: Any, pool_size: Pair, strides: Pair, pads: Pads) -> tuple[Any, Any]:
    """Take the maximum of each window of x (N, H, W, C): y and its place u*PW + v in the window, both (N, OH, OW, C).

    The first maximum in row-major order wins a tie, padding never wins, and the first NaN wins over every number.
    """
    sizes = _sizes(x.shape, pool_size, 0, strides, pads)
    y = _empty((x.shape[0], int(sizes["OH"][0]), int(sizes["OW"][0]), x.shape[3]), x.dtype)
    argmax = _empty(y.shape, np.int32)
    _each("maxpool", y.size, x.dtype, _whole(x), y, argmax, sizes)
    return y, argmax


def maxpool2d_backward(dy: Any, argmax: Any, x_shape: tuple, pool_size: Pair, strides: Pair, pads: Pads) -> Any:
    """Send each dy to the place of its maximum and add where windows overlap: dx (N, H, W, C), of x's shape.

    dy (N, OH, OW, C); argmax (N, OH, OW, C), as `maxpool2d` gave it.
    """
    dx = _empty(x_shape, dy.dtype)
    sizes = _sizes(x_shape, pool_size, 0, strides, pads)
    _each("maxpool_backward", dx.size, dy.dtype, _whole(dy), _whole(argmax), dx, sizes)
    return dx  # (N, H, W, C)


def conv2d_relu_maxpool2d(x: Any, w: Any, b: Any) -> tuple[Any, Any]:
    """Convolve x (N, H, W, C), H and W even, with w (3, 3, C, F) under "same", add b (F,), apply ReLU and pool by 2.

    Returns y (N, H/2, W/2, F) and which of the four won, in the same shape: 0 to 3 in row-major order, 4 for none.
    """
    sizes, (N, H, W, _), F = _sizes(x.shape, (3, 3), w.shape[3], (1, 1), ((1, 1), (1, 1))), x.shape, w.shape[3]
    y, argmax = _empty((N, H // 2, W // 2, F), x.dtype), _empty((N, H // 2, W // 2, F), np.uint8)
    _product("correlate_pool", N * H * W, F, 1, x.dtype, _whole(x), _whole(w), b, y, argmax, sizes)
    return y, argmax


def conv2d_relu_maxpool2d_backward(
    dy: Any, argmax: Any, x: Any, w: Any, input_gradient: bool = True
) -> tuple[Any | None, Any, Any]:
    """Return dx or None, dw and db, the sums over all windows.

    dy and argmax (N, H/2, W/2, F), x and dx (N, H, W, C), w and dw (3, 3, C, F), db (F,).
    """
    sizes = _sizes(x.shape, (3, 3), w.shape[3], (1, 1), ((1, 1), (1, 1)))
    return _gradients(dy, _whole(argmax), x, w, sizes, input_gradient)


def averagepool2d(x: Any, pool_size: Pair, strides: Pair, pads: Pads) -> Any:
    """Take the mean of each window of x (N, H, W, C): y (N, OH, OW, C); only pixels inside the image count."""
    sizes = _sizes(x.shape, pool_size, 0, strides, pads)
    y = _empty((x.shape[0], int(sizes["OH"][0]), int(sizes["OW"][0]), x.shape[3]), x.dtype)
    _each("averagepool", y.size, x.dtype, _whole(x), y, sizes)
    return y


def averagepool2d_backward(dy: Any, x_shape: tuple, pool_size: Pair, strides: Pair, pads: Pads) -> Any:
    """Share each dy (N, OH, OW, C) equally among its window's pixels: dx (N, H, W, C), of x's shape.

    Pixels outside the image get nothing; where windows overlap, their shares add up.
    """
    dx = _empty(x_shape, dy.dtype)
    sizes = _sizes(x_shape, pool_size, 0, strides, pads)
    _each("averagepool_backward", dx.size, dy.dtype, _whole(dy), dx, sizes)
    return dx  # (N, H, W, C)


def dense(x: Any, w: Any, b: Any) -> Any:
    """Return y (N, Out) = x (N, In) @ w (In, Out) + b (Out,)."""
    return _correlate(x, w, b, _one_pixel(x, w)).reshape(len(x), w.shape[1])  # (N, Out)


def dense_backward(dy: Any, x: Any, w: Any, input_gradient: bool = True) -> tuple[Any | None, Any, Any]:
    """Return dx or None, dw and db, the sums over the batch.

    dy (N, Out), x and dx (N, In), w and dw (In, Out), db (Out,).
    """
    return _gradients(dy, None, x, w, _one_pixel(x, w), input_gradient)


def rescale(x: Any, scale: float, offset: float, dtype: str) -> Any:
    """Return x * scale + offset for x (...) of any numbers, computed in `dtype`, a float type."""
    y = _empty(x.shape, dtype)
    numbers = y.dtype.type(scale), y.dtype.type(offset)
    if x.dtype == np.uint8:
        _each("rescale_bytes", x.size, y.dtype, _whole(x), y, *numbers, np.int64(x.size))
    else:
        _each("rescale", x.size, y.dtype, _whole(x.astype(dtype, copy=False)), y, *numbers, np.int64(x.size))
    return y


def relu(x: Any, in_place: bool = False) -> Any:
    """Return max(x, 0) for each element of x (...), which `in_place` may overwrite; a NaN stays a NaN."""
    x = _whole(x)
    y = x if in_place else _empty(x.shape, x.dtype)
    _each("relu", x.size, x.dtype, x, y, np.int64(x.size))
    return y


def relu_backward(dy: Any, y: Any) -> Any:
    """Return dy (...) where y (...) is positive, else 0: at 0 itself the gradient is 0."""
    dx = _empty(dy.shape, dy.dtype)
    _each("relu_backward", dy.size, dy.dtype, _whole(dy), _whole(y), dx, np.int64(dy.size))
    return dx


def leaky_relu(x: Any, negative_slope: float) -> Any:
    """Return x where x (...) is positive, else negative_slope * x."""
    y = _empty(x.shape, x.dtype)
    _each("leaky_relu", x.size, x.dtype, _whole(x), y, x.dtype.type(negative_slope), np.int64(x.size))
    return y


def leaky_relu_backward(dy: Any, y: Any, negative_slope: float) -> Any:
    """Return dy (...) where y (...) is positive, else negative_slope * dy: also at 0 itself."""
    dx, slope = _empty(dy.shape, dy.dtype), dy.dtype.type(negative_slope)
    _each("leaky_relu_backward", dy.size, dy.dtype, _whole(dy), _whole(y), dx, slope, np.int64(dy.size))
    return dx


def gelu(x: Any) -> Any:
    """Return x * P(Z < x) for each element of x (...), Z a normal variable: P(Z < x) = erfc(-x / sqrt(2)) / 2."""
    y = _empty(x.shape, x.dtype)
    _each("gelu", x.size, x.dtype, _whole(x), y, np.int64(x.size))
    return y


def gelu_backward(dy: Any, x: Any) -> Any:
    """Return dy * (P(Z < x) + x * p(x)) for dy and x (...), p(x) = exp(-x^2 / 2) / sqrt(2 * pi), the slope of P."""
    dx = _empty(dy.shape, dy.dtype)
    _each("gelu_backward", dy.size, dy.dtype, _whole(dy), _whole(x), dx, np.int64(dy.size))
    return dx


def softmax(z: Any) -> Any:
    """Return exp(z) / sum(exp(z)) over the last axis of z (..., K), shifted by the maximum: nothing overflows."""
    p, K = _empty(z.shape, z.dtype), z.shape[-1]
    _each("softmax", z.size // K, z.dtype, _whole(z), p, np.int64(z.size // K), np.int32(K))
    return p


def softmax_backward(dy: Any, p: Any) -> Any:
    """Return dz = p * (dy - sum(dy * p)), dy and p (..., K), over the last axis: dy times the softmax's Jacobian."""
    dz, K = _empty(p.shape, p.dtype), p.shape[-1]
    _each("softmax_backward", p.size // K, p.dtype, _whole(dy), _whole(p), dz, np.int64(p.size // K), np.int32(K))
    return dz


def softmax_crossentropy(z: Any, labels: Any, smoothing: float = 0.0) -> tuple[Any, Any]:
    """Return the losses log(sum(exp(z))) - sum(t * z), (N,), and the gradient of their mean, dz (N, K), both stable.

    z (N, K) are logits, labels (N,) integers from 0 to K-1. The targets t are smoothing / K, at the label 1 - smoothing
    more: without smoothing, the losses are log(sum(exp(z))) - z[label].
    """
    (N, K), labels = z.shape, _whole(labels.astype(np.int64, copy=False))
    losses, dz = _empty(N, z.dtype), _empty(z.shape, z.dtype)
    targets = z.dtype.type(1 - smoothing), z.dtype.type(smoothing / K)
    _each("softmax_crossentropy", N, z.dtype, _whole(z), labels, losses, dz, np.int64(N), np.int32(K), *targets)
    return losses, dz


def moments(x: Any) -> tuple[Any, Any]:
    """Return the mean and the biased variance of each channel of x (..., C), both (C,) and float64."""
    x, C = _whole(x), x.shape[-1]
    origin = x.reshape(-1, C)[0].astype(np.float64) if x.size else cupy.zeros(C)  # (C,), near the mean
    sums = _channel_sums(x, None, origin) / max(1, x.size // C)  # (2, C)
    return origin + sums[0], sums[1] - sums[0] * sums[0]


def normalize(x: Any, mean: Any, scale: Any, shift: Any) -> Any:
    """Return y = (x - mean) * scale + shift, channel by channel: x and y (..., C); mean, scale and shift (C,)."""
    y, vectors = _empty(x.shape, x.dtype), [vector.astype(x.dtype) for vector in (mean, scale, shift)]
    _each("normalize", x.size, x.dtype, _whole(x), *vectors, y, np.int64(x.size), np.int32(x.shape[-1]))
    return y


def normalize_sums(dy: Any, x: Any, mean: Any) -> tuple[Any, Any]:
    """Return the sums of dy and of dy * (x - mean) over each channel, both (C,) and float64.

    dy and x (..., C), mean (C,).
    """
    sums = _channel_sums(_whole(x), _whole(dy), mean.astype(np.float64))
    return sums[0], sums[1]


def normalize_backward(dy: Any, x: Any, mean: Any, a: Any, b: Any, c: Any) -> Any:
    """Return dx (..., C) = dy * a + (x - mean) * b + c, channel by channel.

    dy and x (..., C); mean, a, b and c (C,).
    """
    dx, vectors = _empty(x.shape, x.dtype), [vector.astype(x.dtype) for vector in (mean, a, b, c)]
    sizes = np.int64(x.size), np.int32(x.shape[-1])
    _each("normalize_backward", x.size, x.dtype, _whole(dy), _whole(x), *vectors, dx, *sizes)
    return dx


def dropout(x: Any, kept: Any, scale: float) -> Any:
    """Return x * scale where `kept`, of bools, is true, else 0; x and kept (...)."""
    y = _empty(x.shape, x.dtype)
    _each("dropout", x.size, x.dtype, _whole(x), _whole(kept), y, x.dtype.type(scale), np.int64(x.size))
    return y


def gather_pixels(x: Any, rows: Any, cols: Any) -> Any:
    """Return y (N, OH, OW, C), y[n,i,j] = x[n, rows[n,i], cols[n,j]], or 0 where an index is -1.

    x (N, H, W, C) of bytes or floats, rows (N, OH) and cols (N, OW) of int32.
    """
    y = _empty((x.shape[0], rows.shape[1], cols.shape[1], x.shape[3]), x.dtype)
    sizes = np.int64(y.size), *map(np.int32, (*x.shape[1:], *y.shape[1:3]))
    name, real = ("gather_bytes", np.dtype(np.float32)) if x.dtype == np.uint8 else ("gather_pixels", x.dtype)
    _each(name, y.size, real, _whole(x), _whole(rows), _whole(cols), y, *sizes)
    return y


def gather_pixels_backward(dy: Any, rows: Any, cols: Any, x_shape: tuple) -> Any:
    """Add each dy to where `gather_pixels` read it: dx (N, H, W, C), of x's shape.

    dy (N, OH, OW, C), rows (N, OH) and cols (N, OW) of int32.
    """
    dx = _empty(x_shape, dy.dtype)
    sizes = np.int64(dx.size), *map(np.int32, (*x_shape[1:], *dy.shape[1:3]))
    _each("gather_pixels_backward", dx.size, dy.dtype, _whole(dy), _whole(rows), _whole(cols), dx, *sizes)
    return dx


def cutout(x: Any, boxes: Any, value: float) -> Any:
    """Return x with `value` in the box of each image: its rows top to bottom - 1 and columns left to right - 1.

    x (N, H, W, C) of bytes or floats, boxes (N, 4) of int32: top, bottom, left and right, inside the image.
    """
    y = _empty(x.shape, x.dtype)
    sizes = np.int64(x.size), *map(np.int32, x.shape[1:])
    name, real = ("cutout_bytes", np.dtype(np.float32)) if x.dtype == np.uint8 else ("cutout", x.dtype)
    _each(name, x.size, real, _whole(x), _whole(boxes), y, x.dtype.type(value), *sizes)
    return y


def clip_by_norm(dws: Arrays, limit: float, together: bool) -> Arrays:
    """Return dws, each scaled down to a norm (root of the sum of squares) of `limit` if its norm is larger.

    dws (...) is a sequence of arrays, which are left as they are. `together`, the norm is that of all in one.
    """
    dws, count = [_whole(dw) for dw in dws], len(dws)
    sums, totals = _empty((SQUARES, count), np.float64), _empty(count, np.float64)
    for k, dw in enumerate(dws):
        sizes = np.int64(dw.size), np.int32(k), np.int32(count), np.int32(SQUARES)
        _each("square_sums", SQUARES, dw.dtype, dw, sums, *sizes)
    _each("add_channel_sums", count, totals.dtype, sums, totals, np.int32(count), np.int32(SQUARES))
    norms = np.sqrt(totals.sum() if together else totals)  # (arrays,), or of all
    factors = limit / np.maximum(norms, limit)
    return [dw * (factors if together else factors[k : k + 1]).astype(dw.dtype) for k, dw in enumerate(dws)]


def decay(ws: Arrays, rate: float) -> None:
    """In place: w -= rate * w.

    ws (...) is a sequence of arrays.
    """
    _update("decay", (ws,), rate)


def concatenate(xs: Arrays, axis: int) -> Any:
    """Return the arrays xs (N, ...) one behind the other along `axis` >= 1, in which alone they may differ."""
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    y, start, whole = _empty(tuple(shape), xs[0].dtype), 0, math.prod(shape[axis:])
    for x in xs:
        width = math.prod(x.shape[axis:])
        _each("place", x.size, x.dtype, _whole(x), y, *map(np.int64, (start, width, whole, x.size)))
        start += width
    return y


def sgd_step(
    ws: Arrays, dws: Arrays, velocities: Arrays, learning_rate: float, momentum: float, nesterov: bool
) -> None:
    """In place: velocity = momentum * velocity - lr * dw; w += velocity (Nesterov: momentum * velocity - lr * dw).

    ws, dws and velocities (...) are sequences of arrays; those at one place have one shape.
    """
    _update("sgd", (ws, dws, velocities), learning_rate, momentum, nesterov)


def rmsprop_step(ws: Arrays, dws: Arrays, squares: Arrays, learning_rate: float, rho: float, epsilon: float) -> None:
    """In place: square = rho * square + (1 - rho) * dw^2; w -= lr * dw / sqrt(square + epsilon).

    ws, dws and squares (...) are sequences of arrays; those at one place have one shape.
    """
    _update("rmsprop", (ws, dws, squares), learning_rate, rho, 1 - rho, epsilon)


def adam_step(
    ws: Arrays, dws: Arrays, means: Arrays, squares: Arrays,
    learning_rate: float, beta_1: float, beta_2: float, epsilon: float,
) -> None:  # fmt: skip
    """In place: mean += (1 - beta_1) * (dw - mean), and square likewise; w -= lr * mean / (sqrt(square) + epsilon).

    ws, dws, means and squares (...) are sequences of arrays; those at one place have one shape. squares are the means
    of dw^2. lr is corrected, for means that began at 0, already.
    """
    _update("adam", (ws, dws, means, squares), learning_rate, 1 - beta_1, 1 - beta_2, epsilon)


def _update(name: str, columns: Sequence[Arrays], *numbers: float) -> None:
    """Launch the kernel for groups of weights, the first column, and what belongs to each of them."""
    ws = columns[0]
    own = [_whole(w) for w in ws]  # w itself, unless somebody put it into the layer in another order
    for dtype in {w.dtype for w in ws}:
        rows = [row for row in zip(own, *[map(_whole, c) for c in columns[1:]], strict=True) if row[0].dtype == dtype]
        for start in range(0, len(rows), GROUP):
            group, part = np.zeros(1, GROUPED), rows[start : start + GROUP]
            for field, arrays in zip(("w", "dw", "first", "second"), zip(*part, strict=True), strict=False):
                group[field][0, : len(part)] = [array.data.ptr for array in arrays]
            ends = np.cumsum([row[0].size for row in part])
            group["ends"][0, : len(part)] = ends
            _each(name, int(ends[-1]), dtype, group, np.int64(ends[-1]), *map(dtype.type, numbers))
    for w, copy in zip(ws, own, strict=True):
        if w is not copy:
            w[...] = copy


def _channel_sums(x: Any, dy: Any, origin: Any) -> Any:
    """Return two sums over each channel of x (..., C), (2, C): the rows are cut into parts that do not depend on us."""
    C = x.shape[-1]
    rows = x.size // C
    parts = max(1, min(1024, rows // 16))
    sums, total = _empty((parts, 2, C), np.float64), _empty((2, C), np.float64)
    sizes = np.int64(rows), np.int32(C), np.int32(parts)
    _each("channel_sums", parts * C, x.dtype, x, dy, _whole(origin), sums, *sizes)
    _each("add_channel_sums", 2 * C, x.dtype, sums, total, np.int32(2 * C), np.int32(parts))
    return total


def _correlate(x: Any, w: Any, b: Any, sizes: np.ndarray) -> Any:
    N, F, OH, OW = (int(sizes[name][0]) for name in ("N", "F", "OH", "OW"))
    return _summed("correlate", (N * OH * OW, F), w.size // F, (_whole(x), _whole(w), b), b, sizes).reshape(
        N, OH, OW, F
    )


def _gradients(
    dy: Any, argmax: Any, x: Any, w: Any, sizes: np.ndarray, input_gradient: bool
) -> tuple[Any | None, Any, Any]:
    dy, (C, F) = _whole(dy), w.shape[-2:]
    windows = math.prod(int(sizes[name][0]) for name in ("N", "OH", "OW"))
    sums = _summed("weight_gradient", (w.size // F + 1, F), windows, (_whole(x), dy, argmax), None, sizes)
    dw, db = sums[:-1].reshape(w.shape), sums[-1]  # (KH*KW*C, F) -> (KH, KW, C, F), (F,)
    if not input_gradient:
        return None, dw, db
    dx = _summed("input_gradient", (x.size // C, C), w.size // C, (dy, argmax, _whole(w)), None, sizes)
    return dx.reshape(x.shape), dw, db  # (N*H*W, C) -> (N, H, W, C)


def _summed(name: str, shape: Pair, K: int, factors: tuple, b: Any, sizes: np.ndarray) -> Any:
    """Return the product (M, N) of two factors with an inner axis of size K; where it is cut, its parts are summed."""
    (M, N), dtype = shape, factors[0].dtype
    tiles = -(-M // ROWS) * -(-N // (16 * _columns(N)))
    parts = max(1, min(BLOCKS // tiles, K // (4 * DEPTH)))
    y = _empty((parts, M, N), dtype)
    _product(name, M, N, parts, dtype, *factors, y, sizes)
    if parts == 1:
        return y[0]  # (M, N)
    total = _empty(shape, dtype)
    _each("add_parts", total.size, dtype, y, b, total, np.int64(total.size), np.int32(N), np.int32(parts))
    return total


def _product(name: str, M: int, N: int, parts: int, dtype: np.dtype, *arguments: Any) -> None:
    columns = _columns(N)
    grid = (-(-M // ROWS), -(-N // (16 * columns)), parts)
    _launch(f"{name}_{columns}", dtype, grid, arguments)


def _columns(N: int) -> int:
    return 1 if N <= 16 else 2 if N <= 32 else 4  # of sums that a thread keeps, beside 4 rows


def _each(name: str, size: int, dtype: np.dtype, *arguments: Any) -> None:
    if size:
        _launch(name, dtype, (-(-size // THREADS), 1, 1), arguments)


def _launch(name: str, dtype: np.dtype, grid: tuple[int, int, int], arguments: Sequence[Any]) -> None:
    nothing = np.uint64(0)
    _kernel(name, np.dtype(dtype).name)(grid, (THREADS, 1, 1), tuple(nothing if a is None else a for a in arguments))


@functools.cache
def _kernel(name: str, dtype: str) -> Any:
    return _module(dtype).get_function(name)


@functools.cache
def _module(dtype: str) -> Any:
    return cupy.RawModule(code=text(dtype), options=("-std=c++17",))


def text(dtype: str) -> str:
    """Return the CUDA text for float32 or float64."""
    return f"typedef {'float' if dtype == 'float32' else 'double'} real;\n{CUDA}"


def _empty(shape: Any, dtype: Any) -> Any:
    """Return memory of undefined content."""
    return _reserve(
        math.prod(np.atleast_1d(shape).tolist()) * np.dtype(dtype).itemsize, lambda: cupy.empty(shape, dtype)
    )


def _reserve(size: int, make: Callable[[], Any]) -> Any:
    """Return what `make` allocates, so many bytes, or say how many there are."""
    try:
        return make()
    except cupy.cuda.memory.OutOfMemoryError:
        free, total = cupy.cuda.runtime.memGetInfo()
        free += cupy.get_default_memory_pool().free_bytes()
        raise DeviceMemoryError(
            f"the GPU's memory is full: {size / 1e6:,.0f} MB were asked for, "
            f"{free / 1e6:,.0f} MB of {total / 1e6:,.0f} MB are free. Make the batches or the network smaller."
        ) from None


def _whole(array: Any) -> Any:
    return cupy.ascontiguousarray(array)


def _sizes(x_shape: tuple, window: Pair, F: int, strides: Pair, pads: Pads) -> np.ndarray:
    OH, OW = ((x_shape[1 + a] + sum(pads[a]) - window[a]) // strides[a] + 1 for a in (0, 1))
    return np.array([(*x_shape, F, *window, *strides, pads[0][0], pads[1][0], OH, OW)], SIZES)


def _one_pixel(x: Any, w: Any) -> np.ndarray:
    return _sizes((len(x), 1, 1, x.shape[1]), (1, 1), w.shape[1], (1, 1), ((0, 0), (0, 0)))
