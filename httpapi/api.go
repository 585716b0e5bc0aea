package httpapi

import (
	_ "embed"

	"github.com/gofiber/fiber/v2"
)

// openAPI describes every route of this build; a test compares it with the table.
//
//go:embed openapi.yaml
var openAPI []byte

func (s *Server) document(c *fiber.Ctx) error {
	s.send(c, fiber.StatusOK, "application/yaml", openAPI)
	return nil
}
