// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package embed turns texts into vectors with any server that has OpenAI's
// /v1/embeddings, in batches within the server's limits on items and tokens. It
// is batchasync's caller for such a model: all of batchasync's options apply.
//
//	model := &embed.Model{
//		Endpoint: httpcall.Endpoint{
//			URL:    "https://api.openai.com/v1/embeddings",
//			Bearer: httpcall.Secret{Env: "OPENAI_API_KEY"},
//		},
//		Name: "text-embedding-3-small", Dimensions: 512, Base64: true,
//	}
//	vectors, tooLong := embed.ParDoWithFailures(s, model, texts, batchasync.MaxInFlight(8))
//
// The package example is a whole pipeline, but for beam.Init, which main calls first.
//
// # What ends how
//
//   - A text that is too long fails alone: by Model.MaxTextTokens before it is
//     sent, or else when the server answers 400, 422 or 413. The batch is then
//     halved until the text stands alone; the others get their vectors. An
//     answer that names another parameter than the input, such as the model,
//     fails the whole batch at once.
//   - An empty text fails alone, and is not sent.
//   - A 429 is tried again, after Retry-After, or after the time in which
//     x-ratelimit-reset-requests and -tokens promise room for as many tokens
//     again. When an answer's x-ratelimit-remaining-… has no room for another
//     such call, no call of the process begins before there is. The code
//     insufficient_quota is not tried again.
//   - Vectors are matched by their index. One that is missing, twice there, of
//     another number of dimensions than Model.Dimensions, empty or with a NaN in
//     it fails its text; an index that no text has fails the call.
//   - The rest is as in package httpcall.
//
// Tokens that the server says it has read are counted in the metric embed/tokens.
//
// Texts that are not valid UTF-8 are sent with U+FFFD in the place of what is
// not, as JSON can hold nothing else.
package embed
