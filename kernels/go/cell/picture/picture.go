// Package picture shows images. Only programs that show one link it.
package picture

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"

	"crownest/cell"
)

// Value hands over an image as the result.
func Value(img image.Image) {
	if entries := entries(img); entries != nil {
		cell.Result(entries...)
	}
}

// Display shows an image.
func Display(id string, img image.Image, update bool) {
	if entries := entries(img); entries != nil {
		cell.Show(id, update, entries...)
	}
}

func entries(img image.Image) []cell.Entry {
	if img == nil {
		return nil
	}
	size := img.Bounds().Size()
	title := cell.Entry{MIME: "text/plain", Text: fmt.Sprintf("%T of %d×%d", img, size.X, size.Y)}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		cell.Notice("display_failed", "an image cannot be shown: "+err.Error())
		return []cell.Entry{title}
	}
	return []cell.Entry{title, {MIME: "image/png", Text: base64.StdEncoding.EncodeToString(b.Bytes())}}
}
